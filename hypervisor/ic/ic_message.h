/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of the integration services: the header of every message, and version negotiation.
 * Pure; any thread.
 *
 * Spec: docs/hypervisor/ic/ic.md.
 */
#ifndef HYPERVISOR_IC_IC_MESSAGE_H
#define HYPERVISOR_IC_IC_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define IC_HEADER_BYTES         28u
#define IC_NEGOTIATE_BODY_BYTES 16u /* of an answer */
#define IC_VERSIONS_MAX         4u  /* that we offer in one list */

enum ic_type {
	IC_TYPE_NEGOTIATE = 0,
	IC_TYPE_HEARTBEAT = 1,
	IC_TYPE_KVP = 2,
	IC_TYPE_SHUTDOWN = 3,
	IC_TYPE_TIME = 4,
	IC_TYPE_VSS = 5,
};

#define IC_STATUS_OK      0u
#define IC_STATUS_FAILED  0x80004005u
#define IC_STATUS_NO_MORE 0x80070103u

#define IC_FLAG_TRANSACTION 1u
#define IC_FLAG_REQUEST     2u
#define IC_FLAG_RESPONSE    4u

struct ic_version {
	uint16_t major;
	uint16_t minor;
};

struct ic_versions {
	struct ic_version list[IC_VERSIONS_MAX]; /* best first */
	uint32_t count;
};

struct ic_header {
	struct ic_version framework;
	struct ic_version version;
	uint16_t type;
	uint16_t body_bytes;
	uint32_t status;
	uint8_t transaction;
	uint8_t flags;
};

/* Write the header, IC_HEADER_BYTES, to @to. */
void ic_header_encode(const struct ic_header *header, uint8_t *to);
/* -EBADMSG: less than a header, or the body does not fit into @size_bytes. */
BASE_MUST_CHECK int ic_header_decode(const uint8_t *bytes, size_t size_bytes,
				     struct ic_header *ret_header, struct base_error *err);

/* The body of a negotiation request; the bytes written, at most 8 + 8 * IC_VERSIONS_MAX. */
uint16_t ic_negotiate_encode(const struct ic_versions *framework, const struct ic_versions *service,
			     uint8_t *to);
/* The body of its answer: 1 and what the guest chose; 0: it knows none; -EBADMSG: too short, other
 * counts, or a version that was not offered. */
BASE_MUST_CHECK int ic_negotiate_decode(const uint8_t *body, size_t size_bytes,
					const struct ic_versions *framework,
					const struct ic_versions *service,
					struct ic_version ret_chosen[2], struct base_error *err);

/* Whether @version is one of @versions. */
int ic_version_is_offered(const struct ic_versions *versions, struct ic_version version);

#endif
