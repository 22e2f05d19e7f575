/* The limit: a consumer that does nothing but acknowledge, cumulatively, in C.
 *
 * limit PORT QUEUE PREFETCH COUNT: drains COUNT messages of the queue, then waits to be ended.
 */
#define PROGRAM "limit"
#include "../connect.h"

#include <unistd.h>

int main(int argc, char **argv) {
    must(argc == 5, "usage: limit PORT QUEUE PREFETCH COUNT;");
    const int port = atoi(argv[1]), prefetch = atoi(argv[3]);
    const uint64_t count = strtoull(argv[4], NULL, 10);
    /* Often enough that the window never runs dry, seldom enough to cost nothing. */
    const uint64_t step = prefetch < 16 ? 1 : (uint64_t)prefetch / 8;

    amqp_connection_state_t connection = connected(port);
    amqp_basic_qos(connection, 1, 0, prefetch, 0);
    answered(connection, "basic.qos");
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[2]), amqp_empty_bytes, 0, 0, 0,
                       amqp_empty_table);
    answered(connection, "basic.consume");

    for (uint64_t tag = 1; tag <= count; tag++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        amqp_rpc_reply_t got = amqp_consume_message(connection, &envelope, NULL, 0);
        must(got.reply_type == AMQP_RESPONSE_NORMAL, "consume");
        must(envelope.delivery_tag == tag, "delivery in order");
        amqp_destroy_envelope(&envelope);
        if (tag % step == 0 || tag == count) {
            must(amqp_basic_ack(connection, 1, tag, 1) == AMQP_STATUS_OK, "ack");
        }
    }
    pause();
    return 0;
}
