/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of the five services: what is asked, and what is taken from an answer.  Pure; any
 * thread.
 *
 * Spec: docs/hypervisor/ic/ic.md.
 */
#ifndef HYPERVISOR_IC_IC_BODY_H
#define HYPERVISOR_IC_IC_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/ic/ic.h"
#include "hypervisor/ic/ic_message.h"
#include "hypervisor/ic/ic_port.h"

/* Each writes a body to @to (IC_BODY_BYTES_MAX) and gives its bytes. */
uint16_t ic_heartbeat_encode(uint64_t sequence, uint8_t *to);
/* -EBADMSG too short, or another number than @sequence and the next. */
BASE_MUST_CHECK int ic_heartbeat_decode(const struct ic_answer *answer, uint64_t sequence,
					struct base_error *err);

uint16_t ic_shutdown_encode(enum ic_power kind, bool force, uint8_t *to);
/* Whether a guest that chose @version can do it. */
bool ic_shutdown_can(struct ic_version version, enum ic_power kind);

#define IC_TIME_SYNC   1u
#define IC_TIME_SAMPLE 2u
uint16_t ic_time_encode(struct ic_version version, uint64_t real_ns, uint64_t reference,
			uint8_t flags, uint8_t *to);

#define IC_KVP_POOL_AUTO  2u
#define IC_KVP_ITEMS_MAX  64u
#define IC_KVP_KEY_BYTES  512u
#define IC_KVP_TEXT_BYTES 3073u /* 1024 units of UTF-16 as UTF-8, and the terminator */
uint16_t ic_kvp_encode(uint32_t index, uint8_t *to);
struct ic_kvp_item {
	char key[IC_KVP_KEY_BYTES / 2 * 3 + 1];
	char value[IC_KVP_TEXT_BYTES];
};
/* An item of the walk; -EBADMSG: not the one asked for, sizes, not UTF-16, unknown type. */
BASE_MUST_CHECK int ic_kvp_decode(const struct ic_answer *answer, uint32_t index,
				  struct ic_kvp_item *ret_item, struct base_error *err);
/* Put it into the field it belongs to; keys that we do not show change nothing. */
void ic_kvp_absorb(const struct ic_kvp_item *item, struct ic_guest_info *info);

enum ic_vss_op {
	IC_VSS_NONE = 0,
	IC_VSS_HOT_BACKUP = 2,
	IC_VSS_FREEZE = 5,
	IC_VSS_THAW = 6,
};
uint16_t ic_vss_encode(enum ic_vss_op op, uint8_t *to);
/* -EBADMSG too short, or the answer of another operation. */
BASE_MUST_CHECK int ic_vss_decode(const struct ic_answer *answer, enum ic_vss_op op,
				  struct base_error *err);

#endif
