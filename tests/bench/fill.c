/* Fill a queue fast, or keep up a rate.
 *
 * fill PORT QUEUE COUNT SIZE DECK SHAPE [RATE [EXCHANGE]]
 *
 * DECK is a file of bodies of SIZE bytes each, taken in turns. Into each body go its number (eight
 * digits) and the time it is handed to the library (CLOCK_MONOTONIC, nanoseconds, nineteen digits),
 * from byte 8 and 24 on, in lines of text from byte 34 and 49 on. SHAPE: the properties, see `properties` in bodies.py. With RATE, so many a second are sent, evenly; without, as many
 * as the broker takes (RATE 0 is the same), and it ends when the broker has confirmed all of them: they
 * are on its disk then, and no drain finds it still writing. EXCHANGE takes them in place of the default
 * one, with QUEUE as the routing key. The last line printed: seconds that it took.
 */
#define PROGRAM "fill"
#include "connect.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { NUMBER_DIGITS = 8, STAMP_DIGITS = 19, LOOK_EVERY = 64, PUBLISHERS = 100 };

/* What the broker has confirmed: a mark for each message, by its number from 1 on. */
typedef struct {
    char *marks;
    uint64_t below, count; /* all below are marked; so many are marked */
} confirms_t;

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void wait_until(uint64_t when) {
    struct timespec at = {(time_t)(when / 1000000000u), (long)(when % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) {
    }
}

static void put(char *at, int digits, uint64_t value) {
    while (digits--) {
        at[digits] = (char)('0' + value % 10);
        value /= 10;
    }
}

static char *deck_of(const char *path, size_t size, size_t *bodies) {
    FILE *file = fopen(path, "rb");
    must(file != NULL && fseek(file, 0, SEEK_END) == 0, "open the deck");
    const size_t length = (size_t)ftell(file);
    rewind(file);
    char *deck = malloc(length);
    must(deck && fread(deck, 1, length, file) == length, "read the deck");
    fclose(file);
    *bodies = length / size;
    return deck;
}

static void header(amqp_basic_properties_t *properties, amqp_table_entry_t *entries, const char *name, char *value) {
    amqp_table_entry_t *entry = entries + properties->headers.num_entries++;
    entry->key = amqp_cstring_bytes(name);
    entry->value.kind = AMQP_FIELD_KIND_UTF8;
    entry->value.value.bytes = amqp_cstring_bytes(value);
    properties->headers.entries = entries;
    properties->_flags |= AMQP_BASIC_HEADERS_FLAG;
}

/* The properties of one message. What they point at holds until the next call. */
static amqp_basic_properties_t shaped(const char *shape, uint64_t number, char *id) {
    static char traceparent[] = "00-4bf92f3577b34da60000000000000000-00f067aa0ba902b7-01";
    static char host[16], zone[16], app[16];
    static amqp_table_entry_t entries[3];
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG,
        .content_type = amqp_cstring_bytes(strcmp(shape, "text") ? "application/json" : "text/plain"),
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
        .timestamp = (uint64_t)time(NULL),
    };
    const bool traced = !strcmp(shape, "traced");
    if (strcmp(shape, "no-id")) {
        properties._flags |= AMQP_BASIC_MESSAGE_ID_FLAG;
        properties.message_id = amqp_cstring_bytes(id);
    }
    if (traced || !strcmp(shape, "constant")) {
        header(&properties, entries, "host", "web-12");
        header(&properties, entries, "service", "checkout");
    }
    if (traced) {
        put(traceparent + 19, 16, number);
        header(&properties, entries, "traceparent", traceparent);
    }
    if (!strcmp(shape, "publishers")) {
        const unsigned publisher = (unsigned)(number % PUBLISHERS);
        snprintf(host, sizeof host, "web-%u", publisher);
        snprintf(zone, sizeof zone, "zone-%u", publisher % 10);
        snprintf(app, sizeof app, "app-%u", publisher);
        header(&properties, entries, "host", host);
        header(&properties, entries, zone, "eu");
        properties._flags |= AMQP_BASIC_APP_ID_FLAG | (publisher % 3 ? 0 : AMQP_BASIC_TYPE_FLAG);
        properties.app_id = amqp_cstring_bytes(app);
        properties.type = amqp_cstring_bytes("event");
    }
    return properties;
}

static void mark(confirms_t *confirms, uint64_t number) {
    confirms->count += !confirms->marks[number];
    confirms->marks[number] = 1;
}

/* Take in the confirms that are there; with `wait`, wait for one. */
static void look(amqp_connection_state_t connection, confirms_t *confirms, int wait) {
    amqp_frame_t frame;
    struct timeval none = {0, 0};
    amqp_maybe_release_buffers(connection);
    for (;; wait = 0) {
        const int status = amqp_simple_wait_frame_noblock(connection, &frame, wait ? NULL : &none);
        if (status == AMQP_STATUS_TIMEOUT) {
            return;
        }
        must(status == AMQP_STATUS_OK && frame.frame_type == AMQP_FRAME_METHOD &&
             frame.payload.method.id == AMQP_BASIC_ACK_METHOD, "confirm");
        const amqp_basic_ack_t *ack = frame.payload.method.decoded;
        for (; ack->multiple && confirms->below <= ack->delivery_tag; confirms->below++) {
            mark(confirms, confirms->below);
        }
        mark(confirms, ack->delivery_tag);
    }
}

int main(int argc, char **argv) {
    must(argc >= 7 && argc <= 9, "usage: fill PORT QUEUE COUNT SIZE DECK SHAPE [RATE [EXCHANGE]];");
    const uint64_t count = strtoull(argv[3], NULL, 10);
    const size_t size = (size_t)strtoull(argv[4], NULL, 10);
    const double rate = argc > 7 ? atof(argv[7]) : 0;
    const char *exchange = argc > 8 ? argv[8] : "";
    const int is_text = strcmp(argv[6], "text") == 0;
    size_t bodies = 0;
    char *deck = deck_of(argv[5], size, &bodies);
    amqp_connection_state_t connection = connected(atoi(argv[1]));

    confirms_t confirms = {calloc(count + 1, 1), 1, 0};
    must(confirms.marks != NULL, "memory");
    if (rate <= 0) {
        amqp_confirm_select(connection, 1);
        answered(connection, "confirm.select");
    }
    char id[NUMBER_DIGITS + 1] = {0};
    const uint64_t began = now();
    for (uint64_t number = 0; number < count; number++) {
        char *body = deck + number % bodies * size;
        if (rate > 0) {
            wait_until(began + (uint64_t)((double)number * 1e9 / rate));
        }
        put(id, NUMBER_DIGITS, number);
        const amqp_basic_properties_t properties = shaped(argv[6], number, id);
        memcpy(body + (is_text ? 34 : 8), id, NUMBER_DIGITS);
        put(body + (is_text ? 49 : 24), STAMP_DIGITS, now());
        const amqp_bytes_t bytes = {size, body};
        must(amqp_basic_publish(connection, 1, amqp_cstring_bytes(exchange),
                                amqp_cstring_bytes(argv[2]), 0, 0, &properties, bytes) == AMQP_STATUS_OK, "publish");
        if (rate <= 0 && number % LOOK_EVERY == 0) {
            look(connection, &confirms, 0);
        }
    }
    while (rate <= 0 && confirms.count < count) {
        look(connection, &confirms, 1);
    }
    printf("%.6f\n", (double)(now() - began) / 1e9);
    /* The broker has taken everything once it answers what comes after it. */
    amqp_rpc_reply_t closed = amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    must(closed.reply_type == AMQP_RESPONSE_NORMAL, "close");
    return 0;
}
