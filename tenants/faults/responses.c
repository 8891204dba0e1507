// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Responses that break the rules, some that keep them, and the doorbell rung in wrong ways.

#define _GNU_SOURCE
#include "faults.h"

#include <sys/mman.h>

static uint64_t number_or(const struct act *act, uint64_t otherwise) {
    return act->has_number ? act->number : otherwise;
}

void *bad_place(const char *where, const void *good, size_t size) {
    if (strcmp(where, "null") == 0) return NULL;
    if (strcmp(where, "low") == 0) return at(LOW);
    if (strcmp(where, "kernel") == 0) return at(KERNEL_HALF);
    if (strcmp(where, "non-canonical") == 0) return at(NON_CANONICAL);
    if (strcmp(where, "unmapped") == 0) return at(UNMAPPED);
    char *place = before_gap(size / 2); // "straddle"
    if (place) memcpy(place, good, size / 2);
    return place;
}

static void add_header(struct act *act, const char *name, size_t name_size, const char *value, size_t value_size) {
    struct mayfly_header *header = &act->headers[act->response.header_count++];
    header->name.data = name;
    header->name.size = name_size;
    header->value.data = value;
    header->value.size = value_size;
}

static void response_at(struct act *act) {
    static char storage[sizeof(struct mayfly_response) + 1];
    act->rings = 1;
    if (strcmp(act->rest, "unaligned") == 0) {
        act->ring.argument = memcpy(storage + 1, &act->response, sizeof act->response); // Good on x86.
        return;
    }
    act->ring.argument = bad_place(act->rest, &act->response, sizeof act->response);
}
static void body_at(struct act *act) {
    static const char good[64];
    uint64_t size = number_or(act, strcmp(act->rest, "straddle") == 0 ? sizeof good : 1);
    act->rings = 1;
    act->response.body.data = bad_place(act->rest, good, sizeof good);
    act->response.body.size = size;
}
static void headers_at(struct act *act) {
    act->rings = 1;
    act->response.header_count = 1;
    act->response.headers = bad_place(act->rest, act->headers, sizeof *act->headers);
}
static void name_at(struct act *act) {
    act->rings = 1;
    add_header(act, bad_place(act->rest, "x-faults", 8), 8, "value", 5);
}
static void value_at(struct act *act) {
    act->rings = 1;
    add_header(act, "x-faults", 8, bad_place(act->rest, "a value.", 8), 8);
}

static void body_huge(struct act *act) {
    act->rings = 1;
    act->response.body.data = text;
    act->response.body.size = (size_t)1 << 63;
}
static void body_wrap(struct act *act) {
    act->rings = 1;
    act->response.body.data = text;
    act->response.body.size = (size_t)0 - (size_t)(uintptr_t)text + 1;
}
static void value_huge(struct act *act) { act->rings = 1, add_header(act, "x-faults", 8, text, (size_t)1 << 63); }
static void name_huge(struct act *act) { act->rings = 1, add_header(act, text, (size_t)1 << 63, "value", 5); }

static void body_of(struct act *act, uint64_t size) {
    char *body = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    act->rings = 1;
    if (body == MAP_FAILED) return;
    memset(body, 'x', size);
    act->response.body.data = body;
    act->response.body.size = size;
}
static void body_any(struct act *act) { body_of(act, act->number); }
static void body_limit(struct act *act) { body_of(act, host->response_max); }
static void body_over(struct act *act) { body_of(act, host->response_max + 1); }

static void status_any(struct act *act) {
    act->rings = 1;
    act->response.status = (uint32_t)act->number;
}
static void header_count(struct act *act) {
    static char names[MAX_HEADERS][8];
    act->rings = 1;
    for (uint32_t i = 0; i < MAX_HEADERS && i < act->number; ++i) {
        snprintf(names[i], sizeof names[i], "x-%u", i);
        add_header(act, names[i], strlen(names[i]), "value", 5);
    }
    act->response.header_count = (uint32_t)act->number;
}
static void header_max(struct act *act) {
    act->rings = 1;
    act->response.header_count = UINT32_MAX;
}

// Header fields by the name's last part.
#define TEXT(literal)                                                                                                  \
    { literal, sizeof literal - 1 }
static const struct {
    const char *kind;
    struct mayfly_header header;
} header_kinds[] = {
    {"crlf-value", {TEXT("x-faults"), TEXT("a\r\nset-cookie: owned=1")}},
    {"lf-value", {TEXT("x-faults"), TEXT("a\nset-cookie: owned=1")}},
    {"nul-value", {TEXT("x-faults"), TEXT("a\0b")}},
    {"crlf-name", {TEXT("x-faults: a\r\nset-cookie"), TEXT("owned=1")}},
    {"space-name", {TEXT("x faults"), TEXT("value")}},
    {"colon-name", {TEXT("x-faults:"), TEXT("value")}},
    {"empty-name", {TEXT(""), TEXT("value")}},
    {"utf8-name", {TEXT("x-f\xc3\xa4ults"), TEXT("value")}},
    {"content-length", {TEXT("Content-Length"), TEXT("1")}},
    {"transfer-encoding", {TEXT("Transfer-Encoding"), TEXT("chunked")}},
    {"connection", {TEXT("connection"), TEXT("close")}},
    {"keep-alive", {TEXT("keep-alive"), TEXT("timeout=1")}},
    {"upgrade", {TEXT("upgrade"), TEXT("websocket")}},
    {"te", {TEXT("te"), TEXT("trailers")}},
    {"trailer", {TEXT("trailer"), TEXT("x-faults")}},
    {"proxy", {TEXT("Proxy-Authenticate"), TEXT("Basic")}},
    {"upper-case", {TEXT("X-Faults"), TEXT("Value")}},
    {"empty-value", {TEXT("x-faults"), TEXT("")}},
};

static void header_kind(struct act *act) {
    static char big[4000];
    act->rings = 1;
    if (strcmp(act->rest, "cookies") == 0) { // Two fields of one name.
        add_header(act, "set-cookie", 10, "a=1", 3);
        add_header(act, "set-cookie", 10, "b=2", 3);
    } else if (strcmp(act->rest, "big") == 0) {
        memset(big, 'v', sizeof big);
        add_header(act, "x-faults", 8, big, sizeof big);
    }
    for (size_t i = 0; i < sizeof header_kinds / sizeof *header_kinds; ++i)
        if (strcmp(act->rest, header_kinds[i].kind) == 0)
            act->headers[act->response.header_count++] = header_kinds[i].header;
    if (act->response.header_count == 0) act->response.status = 404; // No such kind.
}

// -- The doorbell --

// Rings now, with the present operation, and says the result.
static void ring_and_say(struct act *act, uint64_t operation, uint64_t abi) {
    struct ring ring = act->ring;
    ring.operation = operation;
    ring.abi = abi;
    ring.argument = NULL;
    say("%lld\n", (long long)faults_ring(&ring));
}
static void doorbell_unknown(struct act *act) { ring_and_say(act, number_or(act, 99), MAYFLY_ABI); }
static void doorbell_abi(struct act *act) { ring_and_say(act, MAYFLY_OP_WAIT, act->number); }
static void respond_abi(struct act *act) {
    act->rings = 1;
    act->ring.abi = act->number;
}
static void wait_twice(struct act *act) { ring_and_say(act, MAYFLY_OP_WAIT, MAYFLY_ABI); }
static void doorbell_middle(struct act *act) { ((void (*)(void))(uintptr_t)(host->doorbell + act->number))(); }

// clang-format off: a table for the eye.
const struct behaviour response_behaviours[] = {
    {"response-", response_at},
    {"body-", body_at},
    {"headers-", headers_at},
    {"name-", name_at},
    {"value-", value_at},
    {"body-huge", body_huge},
    {"body-wrap", body_wrap},
    {"value-huge", value_huge},
    {"name-huge", name_huge},
    {"body", body_any},
    {"body-limit", body_limit},
    {"body-over", body_over},
    {"status", status_any},
    {"header-", header_kind},
    {"header-count", header_count},
    {"header-max", header_max},
    {"doorbell-unknown", doorbell_unknown},
    {"doorbell-abi", doorbell_abi},
    {"respond-abi", respond_abi},
    {"wait-twice", wait_twice},
    {"doorbell-middle", doorbell_middle},
    {NULL, NULL},
};
// clang-format on
