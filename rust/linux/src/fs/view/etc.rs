// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts of the synthetic files in `/etc`.

/// Services by the names under which programs look them up (IANA's registry); services(5).
pub(crate) const SERVICES: &str = "\
echo\t\t7/tcp
echo\t\t7/udp
discard\t\t9/tcp\t\tsink null
discard\t\t9/udp\t\tsink null
daytime\t\t13/tcp
ftp-data\t20/tcp
ftp\t\t21/tcp
ssh\t\t22/tcp
telnet\t\t23/tcp
smtp\t\t25/tcp\t\tmail
time\t\t37/tcp\t\ttimserver
domain\t\t53/tcp
domain\t\t53/udp
http\t\t80/tcp\t\twww
kerberos\t88/tcp\t\tkerberos5 krb5
pop3\t\t110/tcp\t\tpop-3
sunrpc\t\t111/tcp\t\tportmapper
ntp\t\t123/udp
imap2\t\t143/tcp\t\timap
snmp\t\t161/udp
ldap\t\t389/tcp
https\t\t443/tcp
https\t\t443/udp
submissions\t465/tcp\t\tssmtp smtps urd
syslog\t\t514/udp
submission\t587/tcp
ldaps\t\t636/tcp
domain-s\t853/tcp
imaps\t\t993/tcp
pop3s\t\t995/tcp
mysql\t\t3306/tcp
postgresql\t5432/tcp\t\tpostgres
amqp\t\t5672/tcp
redis\t\t6379/tcp
http-alt\t8080/tcp\t\twebcache
";

/// protocols(5).
pub(crate) const PROTOCOLS: &str = "\
ip\t0\tIP
icmp\t1\tICMP
tcp\t6\tTCP
udp\t17\tUDP
ipv6\t41\tIPv6
ipv6-icmp\t58\tIPv6-ICMP
";

/// UTC in the format of tzfile(5): version 2, one type of time, no transitions.
pub(crate) fn zone() -> Vec<u8> {
    let mut part = b"TZif2".to_vec();
    part.extend([0; 15]);
    for count in [0_u32, 0, 0, 0, 1, 4] {
        part.extend(count.to_be_bytes());
    }
    part.extend([0; 6]);
    part.extend(b"UTC\0");
    let mut file = part.clone();
    file.extend(part);
    file.extend(b"\nUTC0\n");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_is_as_long_as_the_zone_compilers() {
        assert_eq!(zone().len(), 114);
    }

    #[test]
    fn services_are_lines_of_a_name_and_a_port() {
        for line in SERVICES.lines() {
            let mut fields = line.split_whitespace();
            let (name, port) = (fields.next().unwrap(), fields.next().unwrap());
            let (port, protocol) = port.split_once('/').unwrap();
            assert!(!name.is_empty() && port.parse::<u16>().is_ok() && ["tcp", "udp"].contains(&protocol), "{line}");
        }
    }
}
