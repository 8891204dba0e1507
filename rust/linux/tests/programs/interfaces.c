// SPDX-License-Identifier: MIT OR Apache-2.0
// getifaddrs() on the loopback interface, and other requests on a netlink socket.
#include "say.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static void interfaces(void) {
    struct ifaddrs *all;
    SAY(getifaddrs(&all));
    for (struct ifaddrs *one = all; one; one = one->ifa_next) {
        // Other interfaces, and IPv6, depend on the machine.
        if (strcmp(one->ifa_name, "lo") || !one->ifa_addr || one->ifa_addr->sa_family != AF_INET) continue;
        char address[64], mask[64];
        inet_ntop(AF_INET, &((struct sockaddr_in *)one->ifa_addr)->sin_addr, address, sizeof address);
        inet_ntop(AF_INET, &((struct sockaddr_in *)one->ifa_netmask)->sin_addr, mask, sizeof mask);
        unsigned flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
        printf("lo %s %s %d\n", address, mask, (one->ifa_flags & flags) == flags);
    }
    freeifaddrs(all);
}

static void sockets(void) {
    SAY(socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE));
    SAY(socket(AF_NETLINK, SOCK_RAW, 99));
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    SAY(bind(fd, (void *)&address, 4));
    SAY(bind(fd, (void *)&address, sizeof address));
    socklen_t size = sizeof address;
    SAY(getsockname(fd, (void *)&address, &size));
    printf("size %u, family %d, has a port %d\n", size, address.nl_family, address.nl_pid != 0);
    char buffer[8192];
    SAY(recv(fd, buffer, sizeof buffer, MSG_DONTWAIT));
    struct {
        struct nlmsghdr header;
        struct rtgenmsg body;
    } request = {{.nlmsg_len = sizeof request,
                  .nlmsg_type = RTM_GETADDR,
                  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                  .nlmsg_seq = 7},
                 {.rtgen_family = AF_INET}};
    SAY(send(fd, &request, sizeof request, 0));
    struct pollfd waits = {.fd = fd, .events = POLLIN};
    SAY(poll(&waits, 1, 10000));
    struct sockaddr_nl from;
    size = sizeof from;
    long got = recvfrom(fd, buffer, sizeof buffer, 0, (void *)&from, &size);
    struct nlmsghdr *first = (void *)buffer;
    printf("came %d, from the kernel %d, to us %d, in turn %d, an address %d\n", got > 0, from.nl_pid == 0,
           first->nlmsg_pid == address.nl_pid, first->nlmsg_seq == 7, first->nlmsg_type == RTM_NEWADDR);
    close(fd);
}

static void requests(void) {
    SAY(if_nametoindex("lo"));
    SAY(if_nametoindex("none"));
    char name[IF_NAMESIZE] = {0};
    SAY(if_indextoname(1, name) == name);
    puts(name);
    SAY(if_indextoname(99, name) != NULL);
    static const struct {
        const char *name;
        unsigned long number;
    } all[] = {{"flags", SIOCGIFFLAGS},     {"address", SIOCGIFADDR},  {"destination", SIOCGIFDSTADDR},
               {"mask", SIOCGIFNETMASK},    {"metric", SIOCGIFMETRIC}, {"MTU", SIOCGIFMTU},
               {"hardware", SIOCGIFHWADDR}, {"index", SIOCGIFINDEX},   {"broadcast", SIOCGIFBRDADDR}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct ifreq request = {.ifr_name = "lo"};
        printf("%s\n", all[i].name);
        SAY(ioctl(fd, all[i].number, &request));
        unsigned char *bytes = (void *)&request.ifr_ifru;
        // Of the flags, the device's own; of addresses, family and host.
        int first = all[i].number == SIOCGIFFLAGS ? 1 : 8;
        for (int at = 0; at < first; at++)
            printf(" %02x",
                   all[i].number == SIOCGIFFLAGS ? bytes[at] & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING) : bytes[at]);
        puts("");
    }
    struct ifreq other = {.ifr_name = "none"};
    SAY(ioctl(fd, SIOCGIFADDR, &other));
    SAY(ioctl(fd, SIOCGIFADDR, UNMAPPED));
    SAY(ioctl(0, SIOCGIFADDR, &other));
    struct ifreq list[16];
    struct ifconf found = {.ifc_len = sizeof list, .ifc_req = list};
    SAY(ioctl(fd, SIOCGIFCONF, &found));
    printf("whole %d, first %s\n", found.ifc_len % sizeof *list == 0 && found.ifc_len > 0, list[0].ifr_name);
    found.ifc_len = sizeof *list - 1;
    SAY(ioctl(fd, SIOCGIFCONF, &found));
    SAY(found.ifc_len);
    found.ifc_len = -1;
    SAY(ioctl(fd, SIOCGIFCONF, &found));
    SAY(found.ifc_len);
    found.ifc_buf = NULL;
    found.ifc_len = 0x80000001;
    SAY(ioctl(fd, SIOCGIFCONF, &found));
    printf("needed %d\n", found.ifc_len % sizeof *list == 0 && found.ifc_len > 0);
    close(fd);
}

int main(void) {
    interfaces();
    requests();
    sockets();
    return 0;
}
