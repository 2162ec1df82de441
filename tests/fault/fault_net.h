/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source's connections: TCP to the destination, each through a proxy that fails on order.
 *
 * Threads: any.
 */
#ifndef TESTS_FAULT_NET_H
#define TESTS_FAULT_NET_H

#include <stdint.h>

#include "base/error.h"

/* To 127.0.0.1:@port; what a session's connect() is. */
void fault_net_init(uint16_t port, uint32_t timeout_ms);
BASE_MUST_CHECK int fault_net_connect(void *context, int *ret_fd, struct base_error *err);
/**
 * fault_net_rule - what happens on one connection, the @index-th that is made.
 * @text: INDEX,forth|back,TYPE,SKIP,before|behind,stop|flip
 * stop: step "frame"; nothing goes on this connection until the step goes on.
 */
void fault_net_rule(const char *text);
void fault_net_go(void);
/* The session has closed its connections: the rule's step has been told, and was gone on from, if
 * it was reached. */
void fault_net_settle(void);
/* All connections end, and none is made until it is healed. */
void fault_net_cut(void);
void fault_net_heal(void);

#endif
