// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Calls of a storage program that break the rules, and two programs that keep them: one that calls, one that is called.

#define _GNU_SOURCE
#include "faults.h"

#include <sys/mman.h>

static char buffer[4096];

static struct mayfly_peer_call good_call(const struct act *act) {
    struct mayfly_peer_call call = {{"f", 1}, {NULL, 0}, buffer, act->has_number ? act->number : sizeof buffer};
    if (act->request) call.argument = act->request->body;
    return call;
}

static void call_and_say(const struct act *act, const void *call, const void *result) {
    struct ring ring = act->ring;
    ring.operation = MAYFLY_OP_CALL;
    ring.argument = call;
    int64_t size = faults_ring(&ring);
    if (size < 0) {
        say("error %lld\n", (long long)size);
    } else {
        say("%lld %.*s\n", (long long)size, (int)(size < 1000 ? size : 1000), (const char *)result);
    }
}

static void call_good(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call_and_say(act, &call, buffer);
}
static void call_struct(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call_and_say(act, bad_place(act->rest, &call, sizeof call), buffer);
}
static void call_name(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call.name = (struct mayfly_bytes){bad_place(act->rest, "function", 8), 8};
    call_and_say(act, &call, buffer);
}
static void call_argument(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call.argument = (struct mayfly_bytes){bad_place(act->rest, "argument", 8), 8};
    call_and_say(act, &call, buffer);
}
static void call_result(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call.result = bad_place(act->rest, "resultat", 8);
    call_and_say(act, &call, buffer);
}
static void call_name_size(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    memset(buffer, 'n', sizeof buffer);
    call.name = (struct mayfly_bytes){buffer, act->number};
    call.capacity = sizeof buffer;
    call_and_say(act, &call, buffer);
}
static void call_name_spaces(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call.name = (struct mayfly_bytes){"a b", 3};
    call_and_say(act, &call, buffer);
}
static void call_argument_size(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call.argument = (struct mayfly_bytes){buffer, act->number};
    call.capacity = sizeof buffer;
    call_and_say(act, &call, buffer);
}
static void call_result_read_only(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    call.result = mmap(NULL, FAULTS_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    call_and_say(act, &call, call.result);
}
// Across the border of two untouched pages.
static void call_result_new(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    char *pages = mmap(NULL, 2 * FAULTS_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    call.result = pages + FAULTS_PAGE - 3;
    call_and_say(act, &call, call.result);
}
static void call_endless(struct act *act) {
    struct mayfly_peer_call call = good_call(act);
    act->ring.operation = MAYFLY_OP_CALL;
    act->ring.argument = &call;
    for (;;)
        faults_ring(&act->ring);
}
static void hooks(struct act *act) {
    struct ring ring = act->ring;
    ring.operation = MAYFLY_OP_HOOKS;
    say("%lld\n", (long long)faults_ring(&ring));
}

// -- Programs that use the SDK as others do. --

static char state[64] = "nothing";

static struct mayfly_bytes save(void) { return (struct mayfly_bytes){state, strlen(state)}; }
static int restore(struct mayfly_bytes saved) {
    if (saved.size >= sizeof state || mayfly_equal(saved, "bad")) return -1;
    memcpy(state, saved.data, saved.size);
    state[saved.size] = 0;
    return 0;
}

// Calls the function that the path names, with the query as its argument, and answers the result: 200, or 500 and the
// error. /state answers the state, which another method replaces by the body.
static void sdk_program(struct act *act) {
    (void)act;
    if (mayfly_on_handover(save, restore) != 0) exit(9);
    for (;;) {
        const struct mayfly_request *request = mayfly_wait();
        if (mayfly_equal(request->path, "/state")) {
            if (!mayfly_equal(request->method, "GET") && restore(request->body) != 0) exit(8);
            mayfly_respond(200, NULL, state, strlen(state));
            continue;
        }
        size_t size;
        int error =
            mayfly_call(request->path.data + 1, request->query.data, request->query.size, buffer, sizeof buffer, &size);
        if (error) size = (size_t)snprintf(buffer, sizeof buffer, "%d", error);
        mayfly_respond(error ? 500 : 200, NULL, buffer, size);
    }
}

static int append(struct mayfly_bytes argument, struct mayfly_bytes *result) {
    size_t size = strlen(state);
    if (argument.size >= sizeof state - size) return -1;
    memcpy(state + size, argument.data, argument.size + 1);
    *result = save();
    return 0;
}
static int large(struct mayfly_bytes argument, struct mayfly_bytes *result) {
    (void)argument;
    *result = (struct mayfly_bytes){buffer, sizeof buffer};
    return 0;
}
static struct mayfly_bytes save_for_ever(void) {
    for (volatile int on = 1; on;) {
    }
    return save();
}
// Any NUMBER: its state cannot be saved.
static void sdk_storage(struct act *act) {
    static const struct mayfly_function functions[] = {{"append", append}, {"large", large}};
    if (mayfly_on_handover(act->number ? save_for_ever : save, restore) != 0) exit(9);
    mayfly_serve(functions, sizeof functions / sizeof *functions);
}

// clang-format off: a table for the eye.
const struct behaviour call_behaviours[] = {
    {"peer", call_good},
    {"peer-struct-", call_struct},
    {"peer-name-", call_name},
    {"peer-argument-", call_argument},
    {"peer-result-", call_result},
    {"peer-name-size", call_name_size},
    {"peer-name-spaces", call_name_spaces},
    {"peer-argument-size", call_argument_size},
    {"peer-capacity-size", call_good},
    {"peer-result-read-only", call_result_read_only},
    {"peer-result-new", call_result_new},
    {"peer-endless", call_endless},
    {"hooks", hooks},
    {"sdk-program", sdk_program},
    {"sdk-storage", sdk_storage},
    {NULL, NULL},
};
// clang-format on
