// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Notes over HTTP: an ephemeral program, each request of which starts from the same frozen state, in front of a storage
// program (`store`), which keeps the notes. The tenant's configuration names both.
//
//     PUT    .../notes/KEY     keeps the body: 201, or 204 if it replaced another; 507 if the store is full
//     GET    .../notes/KEY     200 and the note
//     DELETE .../notes/KEY     204
//     GET    .../notes         200 and the number of notes

#include "mayfly.h"

enum { KEY_MAX = 63, VALUE_MAX = 2048 }; // The store's.

static void respond_text(uint32_t status, const char *text) {
    mayfly_respond(status, "text/plain", text, strlen(text));
}

static void respond_empty(uint32_t status) { mayfly_respond(status, NULL, NULL, 0); }

static void respond_not_allowed(const char *allowed) {
    const struct mayfly_header header = {{"allow", 5}, {allowed, strlen(allowed)}};
    const struct mayfly_response response = {405, 1, &header, {NULL, 0}};
    mayfly_respond_with(&response);
}

// Calls the store. On an error answers the request, and returns 0.
static int call(const char *function, const void *argument, size_t size, char *result, size_t capacity,
                size_t *result_size) {
    int error = mayfly_call(function, argument, size, result, capacity, result_size);
    if (error == 0) return 1;
    fprintf(stderr, "notes: %s: %s\n", function, strerror(-error)); // The tenant's log.
    int later = error == -ENOTCONN || error == -EBUSY || error == -ETIMEDOUT;
    respond_text(later ? 503 : 500, "the store does not answer\n");
    return 0;
}

static void get(struct mayfly_bytes key) {
    char note[1 + VALUE_MAX];
    size_t size;
    if (!call("get", key.data, key.size, note, sizeof note, &size)) return;
    if (size == 0) {
        respond_text(404, "no such note\n");
    } else {
        mayfly_respond(200, "application/octet-stream", note + 1, size - 1); // Behind the "=".
    }
}

static void put(struct mayfly_bytes key, struct mayfly_bytes value) {
    char argument[KEY_MAX + 1 + VALUE_MAX], answer[16];
    size_t size;
    if (value.size > VALUE_MAX) {
        respond_text(413, "a note has at most 2048 bytes\n");
        return;
    }
    memcpy(argument, key.data, key.size);
    argument[key.size] = 0;
    memcpy(argument + key.size + 1, value.data, value.size);
    if (!call("put", argument, key.size + 1 + value.size, answer, sizeof answer, &size)) return;
    const struct mayfly_bytes said = {answer, size};
    if (mayfly_equal(said, "full")) {
        respond_text(507, "the store is full\n");
    } else {
        respond_empty(mayfly_equal(said, "new") ? 201 : 204);
    }
}

static void erase(struct mayfly_bytes key) {
    char answer[16];
    size_t size;
    if (!call("delete", key.data, key.size, answer, sizeof answer, &size)) return;
    if (size == 0) {
        respond_text(404, "no such note\n");
    } else {
        respond_empty(204);
    }
}

static void count(void) {
    char number[16];
    size_t size;
    if (call("count", NULL, 0, number, sizeof number, &size)) mayfly_respond(200, "text/plain", number, size);
}

// What follows the first "/notes" of the path: nothing, or "/KEY". NULL if there is neither.
static const char *rest_of(const char *path) {
    for (const char *at = path; (at = strstr(at, "/notes")); ++at)
        if (at[6] == 0 || at[6] == '/') return at + 6;
    return NULL;
}

static void serve(const struct mayfly_request *request) {
    const char *rest = rest_of(request->path.data);
    if (!rest) {
        respond_text(404, "try /notes/KEY\n");
        return;
    }
    // The server sends no body to a HEAD.
    const int is_get = mayfly_equal(request->method, "GET") || mayfly_equal(request->method, "HEAD");
    if (rest[0] == 0 || rest[1] == 0) {
        if (is_get) {
            count();
        } else {
            respond_not_allowed("GET, HEAD");
        }
        return;
    }
    const struct mayfly_bytes key = {rest + 1, strlen(rest + 1)};
    if (key.size > KEY_MAX || strchr(key.data, '/')) {
        respond_text(400, "a key has at most 63 bytes, and no '/'\n");
    } else if (is_get) {
        get(key);
    } else if (mayfly_equal(request->method, "PUT")) {
        put(key, request->body);
    } else if (mayfly_equal(request->method, "DELETE")) {
        erase(key);
    } else {
        respond_not_allowed("GET, HEAD, PUT, DELETE");
    }
}

int main(void) {
    for (;;)
        serve(mayfly_wait());
}
