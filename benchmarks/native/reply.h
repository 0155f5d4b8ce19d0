/* Reading a plugin server's replies. */

#ifndef KONG_PDK_BENCH_REPLY_H
#define KONG_PDK_BENCH_REPLY_H

#include "mp.h"

struct reply {
    uint64_t msgid;
    struct text error; /* data is NULL if there is none */
    struct reader result;
};

/* Read [1, msgid, error, result], and skip notifications [2, label, value] in front of it. */
static inline int read_reply(struct reader *r, struct reply *reply) {
    for (;;) {
        uint64_t size, type;
        const uint8_t *start = r->at;
        MP_TRY(mp_array(r, &size));
        MP_TRY(mp_uint(r, &type));
        if (type == 2 && size == 3) {
            r->at = start;
            MP_TRY(mp_skip(r));
            continue;
        }
        if (type != 1 || size != 4) return MP_BAD;
        MP_TRY(mp_uint(r, &reply->msgid));
        reply->error.data = NULL;
        if (!mp_is_nil(r)) {
            MP_TRY(mp_text(r, &reply->error));
        } else {
            r->at++;
        }
        reply->result = *r;
        MP_TRY(mp_skip(r));
        reply->result.end = r->at;
        return MP_OK;
    }
}

/* Read {Data: "ret" or {Method, Args}, EventId}; an empty method stands for "ret". */
static inline int read_turn(struct reader r, uint64_t *event_id, struct text *method) {
    uint64_t size, call;
    int seen = 0;
    MP_TRY(mp_map(&r, &size));
    while (size--) {
        struct text key;
        MP_TRY(mp_text(&r, &key));
        if (text_is(key, "EventId")) {
            MP_TRY(mp_uint(&r, event_id));
            seen |= 1;
        } else if (text_is(key, "Data") && mp_is_string(&r)) {
            MP_TRY(mp_text(&r, method));
            if (!text_is(*method, "ret")) return MP_BAD;
            method->size = 0;
            seen |= 2;
        } else if (text_is(key, "Data")) {
            MP_TRY(mp_map(&r, &call));
            while (call--) {
                MP_TRY(mp_text(&r, &key));
                if (text_is(key, "Method")) {
                    MP_TRY(mp_text(&r, method));
                    if (!method->size) return MP_BAD;
                    seen |= 2;
                } else {
                    uint64_t args;
                    struct reader list = r;
                    if (text_is(key, "Args")) MP_TRY(mp_array(&list, &args));
                    MP_TRY(mp_skip(&r));
                }
            }
        } else {
            MP_TRY(mp_skip(&r));
        }
    }
    return seen == 3 ? MP_OK : MP_BAD;
}

static inline int read_instance(struct reader r, uint64_t *id) {
    uint64_t size;
    MP_TRY(mp_map(&r, &size));
    while (size--) {
        struct text key;
        MP_TRY(mp_text(&r, &key));
        if (text_is(key, "Id")) return mp_uint(&r, id);
        MP_TRY(mp_skip(&r));
    }
    return MP_BAD;
}

#endif
