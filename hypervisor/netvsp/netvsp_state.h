/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a network card as bytes: section "netvsp", one per card.  Pure.
 *
 * Layout: docs/hypervisor/netvsp/netvsp.md section 9.
 */
#ifndef HYPERVISOR_NETVSP_NETVSP_STATE_H
#define HYPERVISOR_NETVSP_NETVSP_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/netvsp/nvsp_message.h"

#define NETVSP_STATE_VERSION    1u
#define NETVSP_STATE_NAME       "netvsp"
/* Sections of one receive buffer: 31 MiB, the most that a guest's page list can name, in the
 * smallest sections. */
#define NETVSP_SECTIONS_MAX     32768u
#define NETVSP_ANSWERS_MAX      32u  /* a guest has one or two requests open */
#define NETVSP_ANSWER_BYTES_MAX 544u /* the largest answer to a query */

/* A completion for the guest that the ring has no room for yet. */
struct netvsp_completion {
	bool is_set;
	uint64_t trans_id;
	uint8_t payload[NVSP_MESSAGE_BYTES];
};

struct netvsp_answer {
	uint32_t size_bytes;
	uint8_t bytes[NETVSP_ANSWER_BYTES_MAX];
};

/* A buffer of the guest, as it gave it and as we divided it. */
struct netvsp_state_buffer {
	bool is_set;
	bool is_receive;
	uint16_t id;
	uint32_t gpadl_id;
	uint32_t section_bytes, section_count;
	uint32_t shares;     /* queues it is divided among; receive only */
	uint32_t generation; /* receive only, not 0 */
};

/* What control keeps. */
struct netvsp_control {
	uint32_t version; /* enum nvsp_version */
	uint32_t ndis_major, ndis_minor;
	uint32_t guest_mtu; /* as configured by the guest; 0 not */
	uint64_t capabilities;
	bool rndis_ready;
	bool rss_on;
	bool link_shown; /* what the guest was told last */
	bool table_waits;
	uint32_t generation; /* of the last receive buffer */
	uint32_t sub_count;  /* sub-channels offered */
	struct netvsp_state_buffer receive, send;
	struct {
		bool is_set;
		uint64_t trans_id;
		uint32_t count;
	} sub_request; /* waits until earlier sub-channels are gone */
	uint32_t answer_first, answer_count;
	struct netvsp_answer answers[NETVSP_ANSWERS_MAX]; /* a ring */
};

struct netvsp_state {
	struct netvsp_control control; /* answers from 0 on */
	uint32_t filter, offloads;
	uint8_t mac[6];
	struct netvsp_completion waiting[NETVSP_QUEUES_MAX];
	/* Bit n of word w: section 64 * w + n is with the guest. */
	uint64_t used[NETVSP_SECTIONS_MAX / 64];
};

/* Appends. */
void netvsp_state_encode(const struct netvsp_state *state, struct base_buffer *out);
/* -EBADMSG malformed; all of @in must be used up. */
BASE_MUST_CHECK int netvsp_state_decode(struct base_reader *in, struct netvsp_state *ret_state,
					struct base_error *err);

/* The queue that a section belongs to. */
static inline uint32_t netvsp_state_owner(uint32_t section, uint32_t count, uint32_t shares)
{
	const uint32_t owner = section / (count / shares);

	return owner < shares ? owner : shares - 1;
}

#endif
