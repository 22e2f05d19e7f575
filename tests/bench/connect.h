/* How the C programs of the bench connect, and how they give up. Define PROGRAM, their name, first. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>

static void must(int good, const char *what) {
    if (!good) {
        fprintf(stderr, PROGRAM ": %s failed\n", what);
        exit(1);
    }
}

/* The broker's answer to the last request was a good one. */
static void answered(amqp_connection_state_t connection, const char *what) {
    must(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, what);
}

/* As guest, on 127.0.0.1, with channel 1 open. */
static amqp_connection_state_t connected(int port) {
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    must(socket && amqp_socket_open(socket, "127.0.0.1", port) == AMQP_STATUS_OK, "connect");
    amqp_rpc_reply_t login =
        amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest");
    must(login.reply_type == AMQP_RESPONSE_NORMAL, "login");
    amqp_channel_open(connection, 1);
    answered(connection, "channel.open");
    return connection;
}
