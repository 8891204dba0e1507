// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Tests the SDK's header against a doorbell that only writes down how it was rung.

#define _GNU_SOURCE
#include "sdk_test.h"

#include <sys/wait.h>
#include <unistd.h>

int checks, failures;
static int hosted = 1;
static struct mayfly_page page;

static struct ring rings[64];
static size_t ring_count;
static int64_t answers[64];
static int responses_to = -1; // Where responses are written, in the child that serves calls; it ends with the fourth.

static int64_t doorbell(uint64_t operation, const void *argument, uint64_t abi) {
    struct ring *ring = &rings[ring_count];
    ring->operation = operation;
    ring->argument = argument;
    ring->abi = abi;
    if (operation == MAYFLY_OP_RESPOND) memcpy(&ring->response, argument, sizeof ring->response);
    if (operation == MAYFLY_OP_CALL) memcpy(&ring->call, argument, sizeof ring->call);
    if (operation == MAYFLY_OP_RESPOND && responses_to >= 0) {
        dprintf(responses_to, "%u %.*s\n", ring->response.status, (int)ring->response.body.size,
                ring->response.body.data);
        if (ring_count == 4) _exit(0);
    }
    if (operation == MAYFLY_OP_RESPOND && ring->response.header_count)
        memcpy(&ring->header, ring->response.headers, sizeof ring->header);
    return answers[ring_count++];
}

unsigned long test_getauxval(unsigned long type) {
    if (type != AT_MAYFLY) return getauxval(type);
    return hosted ? (unsigned long)(uintptr_t)&page : 0;
}

static void host_reset(void) {
    const struct mayfly_page good = {MAYFLY_MAGIC, 1, 1, (uint64_t)(uintptr_t)&doorbell, 4096, 4096, 64, 0, 0, 0};
    page = good;
    hosted = 1;
    ring_count = 0;
    memset(rings, 0, sizeof rings);
    memset(&mayfly_sdk, 0, sizeof mayfly_sdk);
}

void share(void *memory, size_t size) {
    page.flags |= MAYFLY_PAGE_SHARED;
    page.shared = (uint64_t)(uintptr_t)memory;
    page.shared_size = size;
}

void answer_with(size_t ring, int64_t answer) { answers[ring] = answer; }
size_t rung(void) { return ring_count; }
const struct ring *ring_at(size_t index) { return &rings[index]; }

static int64_t address(const void *pointer) { return (int64_t)(uintptr_t)pointer; }

static void one_request_is_one_doorbell(void) {
    static struct mayfly_request requests[11];
    host_reset();
    for (size_t i = 0; i < 11; ++i)
        answers[i] = address(&requests[i]);
    for (size_t i = 0; i < 10; ++i) {
        CHECK(mayfly_wait() == &requests[i]);
        CHECK(ring_count == i + 1);
        CHECK(mayfly_respond(200, NULL, "", 0) == 0);
        CHECK(ring_count == i + 2);
    }
    CHECK(rings[0].operation == MAYFLY_OP_WAIT && rings[0].argument == NULL && rings[0].abi == 1);
    for (size_t i = 1; i < 11; ++i)
        CHECK(rings[i].operation == MAYFLY_OP_RESPOND && rings[i].abi == 1);
}

static void a_response_reaches_the_host_as_given(void) {
    static struct mayfly_request request;
    host_reset();
    answers[0] = answers[1] = answers[2] = answers[3] = address(&request);
    mayfly_wait();
    CHECK(mayfly_respond(404, "text/html", "gone", 4) == 0);
    CHECK(rings[1].response.status == 404 && rings[1].response.header_count == 1);
    CHECK(mayfly_equal(rings[1].header.name, "content-type") && mayfly_equal(rings[1].header.value, "text/html"));
    CHECK(mayfly_equal(rings[1].response.body, "gone"));
    mayfly_wait();
    CHECK(mayfly_respond(204, NULL, NULL, 0) == 0);
    CHECK(rings[2].response.header_count == 0 && rings[2].response.body.size == 0);
    mayfly_wait();
    const struct mayfly_response response = {299, 0, NULL, {"x", 1}};
    CHECK(mayfly_respond_with(&response) == 0);
    CHECK(rings[3].argument == &response);
}

static void responses_out_of_turn_are_refused_without_a_doorbell(void) {
    static struct mayfly_request request;
    host_reset();
    CHECK(mayfly_respond(200, NULL, "", 0) == -EPROTO); // Before the first wait.
    CHECK(ring_count == 0);
    answers[0] = answers[1] = answers[2] = address(&request);
    mayfly_wait();
    CHECK(mayfly_respond(200, NULL, "", 0) == 0);
    CHECK(mayfly_respond(200, NULL, "", 0) == -EPROTO); // The next request has not been looked at.
    CHECK(ring_count == 2);
    CHECK(mayfly_wait() == &request);
    CHECK(mayfly_respond(200, NULL, "", 0) == 0);
}

static void an_error_of_the_host_is_returned_and_the_request_stays(void) {
    static struct mayfly_request request;
    host_reset();
    answers[0] = answers[2] = address(&request);
    answers[1] = -EINVAL;
    mayfly_wait();
    CHECK(mayfly_respond(99, NULL, "", 0) == -EINVAL);
    CHECK(mayfly_respond(200, NULL, "", 0) == 0);
    CHECK(ring_count == 3);
}

static void headers_are_found_by_name_in_any_case(void) {
    const struct mayfly_header headers[] = {{{"host", 4}, {"example.org", 11}},
                                            {{"x-empty", 7}, {"", 0}},
                                            {{"accept", 6}, {"first", 5}},
                                            {{"accept", 6}, {"second", 6}},
                                            {{"x[", 2}, {"bracket", 7}}};
    struct mayfly_request request;
    memset(&request, 0, sizeof request);
    CHECK(mayfly_find_header(&request, "host") == NULL);
    request.headers = headers;
    request.header_count = 5;
    CHECK(mayfly_equal(*mayfly_find_header(&request, "host"), "example.org"));
    CHECK(mayfly_equal(*mayfly_find_header(&request, "Host"), "example.org"));
    CHECK(mayfly_find_header(&request, "X-EMPTY")->size == 0);
    CHECK(mayfly_find_header(&request, "Accept") == &headers[2].value);
    CHECK(mayfly_find_header(&request, "hos") == NULL);
    CHECK(mayfly_find_header(&request, "hosts") == NULL);
    CHECK(mayfly_find_header(&request, "") == NULL);
    CHECK(mayfly_find_header(&request, "x{") == NULL); // '{' is '[' with the bit of lower case.
    CHECK(mayfly_find_header(&request, "x[") == &headers[4].value);
}

static void equality_minds_length_and_content(void) {
    const struct mayfly_bytes bytes = {"GET\0x", 5}, get = {"GETTER", 3};
    CHECK(mayfly_equal(get, "GET") && !mayfly_equal(get, "GETT") && !mayfly_equal(get, "get"));
    CHECK(!mayfly_equal(bytes, "GET"));
}

// Runs mayfly_wait() in a child. Returns its exit status and what it wrote to stderr.
static int wait_in_child(char *message, size_t capacity) {
    int ends[2], status = -1;
    if (pipe(ends) != 0) return -1;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        mayfly_wait();
        _exit(77);
    }
    close(ends[1]);
    size_t size = 0;
    for (ssize_t n; (n = read(ends[0], message + size, capacity - 1 - size)) > 0;)
        size += (size_t)n;
    message[size] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int is_one_line(const char *text) { return *text && strchr(text, '\n') == text + strlen(text) - 1; }

static void outside_mayfly_the_program_says_so_and_ends_well(void) {
    char message[512];
    host_reset();
    hosted = 0;
    CHECK(mayfly_host() == NULL);
    CHECK(wait_in_child(message, sizeof message) == 0);
    CHECK(is_one_line(message) && strstr(message, "mayfly run"));
}

static void another_abi_is_refused_at_boot(void) {
    char message[512];
    host_reset();
    page.abi_min = 2;
    page.abi_max = 3;
    CHECK(wait_in_child(message, sizeof message) == 1);
    CHECK(is_one_line(message) && strstr(message, "ABI 1") && strstr(message, "2 to 3"));
    page.abi_min = page.abi_max = 0;
    CHECK(wait_in_child(message, sizeof message) == 1);
    page.abi_min = 0;
    page.abi_max = 9;
    CHECK(wait_in_child(message, sizeof message) == 77);
    page.magic = 1;
    CHECK(wait_in_child(message, sizeof message) == 1);
    CHECK(is_one_line(message));
}

static void a_host_that_refuses_to_wait_ends_the_program(void) {
    char message[512];
    host_reset();
    answers[0] = -EPROTONOSUPPORT;
    CHECK(wait_in_child(message, sizeof message) == 1);
    CHECK(is_one_line(message) && strstr(message, "93"));
}

static void what_the_boot_printed_is_flushed_before_the_freeze(void) {
    static struct mayfly_request request;
    FILE *file = tmpfile();
    host_reset();
    answers[0] = address(&request);
    CHECK(file && fputs("boot", file) >= 0 && lseek(fileno(file), 0, SEEK_END) == 0);
    mayfly_wait();
    CHECK(lseek(fileno(file), 0, SEEK_END) == 4);
    fclose(file);
}

static void a_call_reaches_the_host_as_given(void) {
    static struct mayfly_request request;
    char result[8];
    size_t size = 99;
    host_reset();
    CHECK(mayfly_call("f", "xy", 2, result, sizeof result, &size) == -EPROTO); // Before the first wait.
    CHECK(size == 0 && ring_count == 0);
    answers[0] = answers[3] = address(&request);
    answers[1] = 5;
    answers[2] = -ENOENT;
    mayfly_wait();
    CHECK(mayfly_call("f", "xy", 2, result, sizeof result, &size) == 0 && size == 5);
    CHECK(rings[1].operation == MAYFLY_OP_CALL && rings[1].abi == 1);
    CHECK(mayfly_equal(rings[1].call.name, "f") && mayfly_equal(rings[1].call.argument, "xy"));
    CHECK(rings[1].call.result == result && rings[1].call.capacity == sizeof result);
    CHECK(mayfly_call("g", NULL, 0, NULL, 0, &size) == -ENOENT && size == 0);
    CHECK(mayfly_respond(200, NULL, "", 0) == 0);
    CHECK(mayfly_call("f", "xy", 2, result, sizeof result, &size) ==
          -EPROTO); // The next request has not been looked at.
    CHECK(ring_count == 4);
}

static struct mayfly_bytes restored;
static struct mayfly_bytes save(void) { return (struct mayfly_bytes){"state", 5}; }
static int restore(struct mayfly_bytes state) {
    restored = state;
    return state.size == 3;
}

static void hooks_are_served_while_the_program_waits(void) {
    static struct mayfly_request requests[4] = {{.method = {"mayfly:save", 11}},
                                                {.method = {"mayfly:restore", 14}, .body = {"bad", 3}},
                                                {.method = {"mayfly:restore", 14}, .body = {"good", 4}},
                                                {.method = {"GET", 3}}};
    host_reset();
    for (size_t i = 0; i < 4; ++i)
        answers[i + 1] = address(&requests[i]);
    answers[0] = 0;
    CHECK(mayfly_on_handover(save, restore) == 0);
    CHECK(mayfly_wait() == &requests[3]);
    CHECK(ring_count == 5 && rings[0].operation == MAYFLY_OP_HOOKS && rings[1].operation == MAYFLY_OP_WAIT);
    CHECK(rings[2].response.status == 200 && mayfly_equal(rings[2].response.body, "state"));
    CHECK(rings[3].response.status == 500 && rings[4].response.status == 200 && mayfly_equal(restored, "good"));
    CHECK(mayfly_on_handover(save, restore) == -EPROTO); // Too late.

    host_reset();
    answers[0] = -ENOSYS; // A host that is older than hooks.
    answers[1] = address(&requests[0]);
    CHECK(mayfly_on_handover(save, restore) == -ENOSYS);
    CHECK(mayfly_wait() == &requests[0]);
    hosted = 0;
    CHECK(mayfly_on_handover(save, restore) == -ENODEV);
}

static int twice(struct mayfly_bytes argument, struct mayfly_bytes *result) {
    static char text[16];
    if (argument.size > 8) return 1;
    memcpy(text, argument.data, argument.size);
    memcpy(text + argument.size, argument.data, argument.size);
    *result = (struct mayfly_bytes){text, 2 * argument.size};
    return 0;
}

static void a_storage_program_answers_calls_alone(void) {
    static const struct mayfly_function functions[] = {{"twice", twice}};
    static struct mayfly_request requests[4] = {
        {.method = {"mayfly:call", 11}, .path = {"twice", 5}, .body = {"ab", 2}},
        {.method = {"mayfly:call", 11}, .path = {"twice", 5}, .body = {"too much of it", 14}},
        {.method = {"mayfly:call", 11}, .path = {"thrice", 6}},
        {.method = {"GET", 3}, .path = {"twice", 5}}};
    char message[512];
    host_reset();
    for (size_t i = 0; i < 4; ++i)
        answers[i] = address(&requests[i]);
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        responses_to = ends[1];
        mayfly_serve(functions, 1);
    }
    close(ends[1]);
    size_t size = 0;
    for (ssize_t n; (n = read(ends[0], message + size, sizeof message - 1 - size)) > 0;)
        size += (size_t)n;
    message[size] = 0;
    close(ends[0]);
    waitpid(child, NULL, 0);
    CHECK(strcmp(message, "200 abab\n500 \n404 \n405 \n") == 0);
}

static void the_host_page_is_at_hand(void) {
    host_reset();
    CHECK(mayfly_host() == &page && mayfly_host()->response_headers_max == 64);
}

static void shared_memory_is_found_where_there_is_any(void) {
    static long memory[2];
    size_t size = 1;
    host_reset();
    CHECK(mayfly_shared(&size) == NULL && size == 0);
    share(memory, sizeof memory);
    CHECK(mayfly_shared(&size) == memory && size == sizeof memory);
    page.magic = 1;
    CHECK(mayfly_shared(&size) == NULL && size == 0);
    hosted = 0;
    size = 1;
    CHECK(mayfly_shared(&size) == NULL && size == 0);
}

int main(void) {
    one_request_is_one_doorbell();
    a_response_reaches_the_host_as_given();
    responses_out_of_turn_are_refused_without_a_doorbell();
    an_error_of_the_host_is_returned_and_the_request_stays();
    headers_are_found_by_name_in_any_case();
    equality_minds_length_and_content();
    outside_mayfly_the_program_says_so_and_ends_well();
    another_abi_is_refused_at_boot();
    a_host_that_refuses_to_wait_ends_the_program();
    what_the_boot_printed_is_flushed_before_the_freeze();
    a_call_reaches_the_host_as_given();
    hooks_are_served_while_the_program_waits();
    a_storage_program_answers_calls_alone();
    the_host_page_is_at_hand();
    shared_memory_is_found_where_there_is_any();
    host_reset();
    test_cxx();
    printf("sdk_test: %d checks, %d failed\n", checks, failures);
    return failures != 0;
}
