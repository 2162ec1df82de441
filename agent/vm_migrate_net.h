/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a migration comes to: addresses in numbers, listening and connecting.  No names are looked
 * up: a locked-down worker cannot, and who starts it can.
 */
#ifndef AGENT_VM_MIGRATE_NET_H
#define AGENT_VM_MIGRATE_NET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/error.h"

#define VM_ADDRESS_BYTES 64u /* "[" IPv6 with a zone "]:" port, and its zero */

struct vm_address {
	struct sockaddr_storage socket;
	socklen_t socket_bytes;
	char text[VM_ADDRESS_BYTES]; /* as it was given */
};

/**
 * vm_address_parse - "192.0.2.1:7011" or "[2001:db8::1]:7011".
 * -EINVAL; the text says what was expected and not of what.  Pure.
 */
BASE_MUST_CHECK int vm_address_parse(const char *text, struct vm_address *ret_address,
				     struct base_error *err);

/* A host's addresses on several networks, in order of preference. */
#define VM_ADDRESSES_MAX   4u
#define VM_ADDRESSES_BYTES (VM_ADDRESSES_MAX * VM_ADDRESS_BYTES)
struct vm_addresses {
	struct vm_address list[VM_ADDRESSES_MAX];
	uint32_t count; /* from 1 */
};

/**
 * vm_addresses_parse - addresses with commas between.
 * -EINVAL: one is wrong, is there twice, or they are too many; the text as vm_address_parse()'s.
 * Pure.
 */
BASE_MUST_CHECK int vm_addresses_parse(const char *text, struct vm_addresses *ret_addresses,
				       struct base_error *err);

/* The host of it alone, in numbers.  Pure. */
void vm_address_host(const struct vm_address *address, char ret_text[VM_ADDRESS_BYTES]);

/* A listening socket, not blocking.  Errno of the kernel. */
BASE_MUST_CHECK int vm_address_listen(const struct vm_address *address, int *ret_fd,
				      struct base_error *err);

/* A connected socket, blocking; -ETIMEDOUT after @timeout_ms, errno of the kernel. */
BASE_MUST_CHECK int vm_address_connect(const struct vm_address *address, uint32_t timeout_ms,
				       int *ret_fd, struct base_error *err);

#endif
