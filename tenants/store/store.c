// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A storage program: a small table of keys and values, for a front program such as `notes`. It runs for as long as the
// tenant does, is called by one request at a time, and hands its table to its next version.
//
//     function  argument             result
//     put       key, NUL, value      "new", "replaced", or "full"
//     get       key                  "=" and the value, or nothing if there is none
//     delete    key                  "deleted", or nothing if there was none
//     count     (ignored)            number of keys, in decimal
//
// A call fails if its key is not 1 to 63 bytes without a NUL, or its value longer than 2048.

#include "mayfly.h"

enum { VERSION = 1, ENTRIES = 256, KEY_MAX = 63, VALUE_MAX = 2048 };

// The table, which is also what is handed over. Keys lie apart from the values, so that a search reads few pages.
static struct table {
    uint32_t version;
    uint32_t count;
    struct key {
        uint8_t size;
        char text[KEY_MAX];
    } keys[ENTRIES];
    struct value {
        uint16_t size;
        char text[VALUE_MAX];
    } values[ENTRIES];
} table = {.version = VERSION};

static int is_key(struct mayfly_bytes key) {
    return key.size > 0 && key.size <= KEY_MAX && !memchr(key.data, 0, key.size);
}

// The key's place, or `count` if it has none.
static uint32_t find(struct mayfly_bytes key) {
    uint32_t at = 0;
    while (at < table.count &&
           (table.keys[at].size != key.size || memcmp(table.keys[at].text, key.data, key.size) != 0))
        ++at;
    return at;
}

static int answer(struct mayfly_bytes *result, const char *text) {
    result->data = text;
    result->size = strlen(text);
    return 0;
}

static int put(struct mayfly_bytes argument, struct mayfly_bytes *result) {
    const char *end = memchr(argument.data, 0, argument.size);
    if (!end) return -1;
    const struct mayfly_bytes key = {argument.data, (size_t)(end - argument.data)};
    const struct mayfly_bytes value = {end + 1, argument.size - key.size - 1};
    if (!is_key(key) || value.size > VALUE_MAX) return -1;

    uint32_t at = find(key);
    const int is_new = at == table.count;
    if (at == ENTRIES) return answer(result, "full");
    if (is_new) {
        table.keys[at].size = (uint8_t)key.size;
        memcpy(table.keys[at].text, key.data, key.size);
        ++table.count;
    }
    table.values[at].size = (uint16_t)value.size;
    memcpy(table.values[at].text, value.data, value.size);
    return answer(result, is_new ? "new" : "replaced");
}

static int get(struct mayfly_bytes key, struct mayfly_bytes *result) {
    static char found[1 + VALUE_MAX]; // Stays until the next call, as results must.
    if (!is_key(key)) return -1;
    uint32_t at = find(key);
    if (at == table.count) return 0;
    found[0] = '=';
    memcpy(found + 1, table.values[at].text, table.values[at].size);
    result->data = found;
    result->size = 1 + (size_t)table.values[at].size;
    return 0;
}

static int erase(struct mayfly_bytes key, struct mayfly_bytes *result) {
    if (!is_key(key)) return -1;
    uint32_t at = find(key);
    if (at == table.count) return 0;
    --table.count; // The last one takes its place.
    table.keys[at] = table.keys[table.count];
    table.values[at] = table.values[table.count];
    return answer(result, "deleted");
}

static int count(struct mayfly_bytes argument, struct mayfly_bytes *result) {
    static char text[12];
    (void)argument;
    snprintf(text, sizeof text, "%u", (unsigned)table.count);
    return answer(result, text);
}

static struct mayfly_bytes save(void) {
    const struct mayfly_bytes saved = {(const char *)&table, sizeof table};
    return saved;
}

// Accepts a table of this version if all its sizes are in range.
static int restore(struct mayfly_bytes saved) {
    static struct table old;
    if (saved.size != sizeof old) return -1;
    memcpy(&old, saved.data, sizeof old);
    if (old.version != VERSION || old.count > ENTRIES) return -1;
    for (uint32_t at = 0; at < old.count; ++at)
        if (old.keys[at].size > KEY_MAX || old.values[at].size > VALUE_MAX) return -1;
    table = old;
    return 0;
}

int main(void) {
    static const struct mayfly_function functions[] = {{"put", put}, {"get", get}, {"delete", erase}, {"count", count}};
    mayfly_on_handover(save, restore);
    mayfly_serve(functions, sizeof functions / sizeof *functions);
}
