/* As much MessagePack as the load client and the floor need: reading in place, without copies. */

#ifndef KONG_PDK_BENCH_MP_H
#define KONG_PDK_BENCH_MP_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* What each reading function returns. */
enum { MP_BAD = -1, MP_SHORT = 0, MP_OK = 1 };

#define MP_TRY(expression)                    \
    do {                                      \
        int mp_status = (expression);         \
        if (mp_status != MP_OK) return mp_status; \
    } while (0)

struct reader {
    const uint8_t *at, *end;
};

struct text {
    const char *data;
    size_t size;
};

static inline int text_is(struct text text, const char *wanted) {
    return text.size == strlen(wanted) && memcmp(text.data, wanted, text.size) == 0;
}

static inline uint64_t mp_number(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    while (bytes--) value = value << 8 | *at++;
    return value;
}

/* The head of a value: what is inside of it (containers), or behind it (strings, numbers). */
struct mp_head {
    enum { MP_ATOM, MP_STRING, MP_ARRAY, MP_MAP } kind;
    uint8_t byte;
    uint64_t size; /* entries of a container, bytes of a string, bytes of an atom's payload */
};

static inline int mp_head(struct reader *r, struct mp_head *head) {
    if (r->at >= r->end) return MP_SHORT;
    uint8_t b = head->byte = *r->at;
    int length = 0; /* bytes of the length that follows */
    uint64_t more = 0;
    head->kind = MP_ATOM;
    head->size = 0;
    if (b < 0x80 || b >= 0xe0) {
    } else if (b < 0x90) {
        head->kind = MP_MAP, head->size = b & 15;
    } else if (b < 0xa0) {
        head->kind = MP_ARRAY, head->size = b & 15;
    } else if (b < 0xc0) {
        head->kind = MP_STRING, head->size = b & 31;
    } else if (b == 0xc1) {
        return MP_BAD;
    } else if (b >= 0xc4 && b <= 0xc6) {
        head->kind = MP_STRING, length = 1 << (b - 0xc4);
    } else if (b >= 0xc7 && b <= 0xc9) {
        length = 1 << (b - 0xc7), more = 1; /* ext: its type */
    } else if (b == 0xca || b == 0xcb) {
        head->size = b == 0xca ? 4 : 8;
    } else if (b >= 0xcc && b <= 0xd3) {
        head->size = 1u << ((b - 0xcc) & 3);
    } else if (b >= 0xd4 && b <= 0xd8) {
        head->size = 1 + (1u << (b - 0xd4));
    } else if (b >= 0xd9 && b <= 0xdb) {
        head->kind = MP_STRING, length = 1 << (b - 0xd9);
    } else if (b >= 0xdc) {
        head->kind = b < 0xde ? MP_ARRAY : MP_MAP;
        length = b & 1 ? 4 : 2;
    }
    if (r->end - r->at < 1 + length) return MP_SHORT;
    if (length) head->size = mp_number(r->at + 1, length) + more;
    r->at += 1 + length;
    return MP_OK;
}

/* Skip one value with all that is in it. */
static inline int mp_skip(struct reader *r) {
    for (uint64_t left = 1; left; left--) {
        struct mp_head head;
        MP_TRY(mp_head(r, &head));
        if (head.kind == MP_ARRAY || head.kind == MP_MAP) {
            left += head.kind == MP_MAP ? 2 * head.size : head.size;
        } else {
            if ((uint64_t)(r->end - r->at) < head.size) return MP_SHORT;
            r->at += head.size;
        }
    }
    return MP_OK;
}

static inline int mp_array(struct reader *r, uint64_t *size) {
    struct mp_head head;
    MP_TRY(mp_head(r, &head));
    *size = head.size;
    return head.kind == MP_ARRAY ? MP_OK : MP_BAD;
}

static inline int mp_map(struct reader *r, uint64_t *size) {
    struct mp_head head;
    MP_TRY(mp_head(r, &head));
    *size = head.size;
    return head.kind == MP_MAP ? MP_OK : MP_BAD;
}

static inline int mp_text(struct reader *r, struct text *text) {
    struct mp_head head;
    MP_TRY(mp_head(r, &head));
    if (head.kind != MP_STRING) return MP_BAD;
    if ((uint64_t)(r->end - r->at) < head.size) return MP_SHORT;
    text->data = (const char *)r->at;
    text->size = head.size;
    r->at += head.size;
    return MP_OK;
}

static inline int mp_uint(struct reader *r, uint64_t *value) {
    struct mp_head head;
    MP_TRY(mp_head(r, &head));
    if ((uint64_t)(r->end - r->at) < head.size) return MP_SHORT;
    int wide = head.byte >= 0xcc && head.byte <= 0xd3;
    if (head.byte >= 0x80 && !wide) return MP_BAD;
    *value = wide ? mp_number(r->at, (int)head.size) : head.byte;
    r->at += head.size;
    return MP_OK;
}

static inline int mp_is_string(const struct reader *r) {
    uint8_t b = r->at < r->end ? *r->at : 0;
    return (b >= 0xa0 && b < 0xc0) || (b >= 0xd9 && b <= 0xdb) || (b >= 0xc4 && b <= 0xc6);
}

static inline int mp_is_nil(const struct reader *r) {
    return r->at < r->end && *r->at == 0xc0;
}

/* --- writing; each function returns the place behind what it has written ---------------------- */

static inline uint8_t *put_raw(uint8_t *to, const void *data, size_t size) {
    memcpy(to, data, size);
    return to + size;
}

#define PUT_BYTES(to, literal) put_raw(to, literal, sizeof(literal) - 1)

static inline uint8_t *put_uint(uint8_t *to, uint64_t value) {
    if (value < 0x80) {
        *to = (uint8_t)value;
        return to + 1;
    }
    if (value <= UINT32_MAX) {
        uint32_t wire = htobe32((uint32_t)value);
        *to = 0xce;
        return put_raw(to + 1, &wire, 4);
    }
    uint64_t wire = htobe64(value);
    *to = 0xcf;
    return put_raw(to + 1, &wire, 8);
}

static inline uint8_t *put_text_head(uint8_t *to, size_t size) {
    if (size < 32) {
        *to = (uint8_t)(0xa0 | size);
        return to + 1;
    }
    uint32_t wire = htobe32((uint32_t)size);
    *to = 0xdb;
    return put_raw(to + 1, &wire, 4);
}

static inline uint8_t *put_bin_head(uint8_t *to, size_t size) {
    uint32_t wire = htobe32((uint32_t)size);
    *to = 0xc6;
    return put_raw(to + 1, &wire, 4);
}

static inline uint8_t *put_text(uint8_t *to, const char *data, size_t size) {
    return put_raw(put_text_head(to, size), data, size);
}

#endif
