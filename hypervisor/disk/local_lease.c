/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease record of a local file, one line of text:
 *
 *	godwit-lease 1 epoch=7 state=held crc=0a1b2c3d holder=web1 on n2
 *
 * Decoding takes the fields apart, encodes them again and compares: so there is exactly one text
 * for one record.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "hypervisor/disk/local_store.h"

#define HEAD   "godwit-lease 1 epoch="
#define HELD   " state=held crc="
#define FREE   " state=free crc="
#define HOLDER " holder="

_Static_assert(sizeof(HEAD) + 20 + sizeof(HELD) + 8 + sizeof(HOLDER) + STORE_TEXT_BYTES <=
		       LOCAL_LEASE_BYTES,
	       "the longest record fits");

/* Over everything but itself. */
static uint32_t record_crc(const struct store_lease *lease)
{
	char fields[64];
	int length = snprintf(fields, sizeof(fields), HEAD "%" PRIu64 "%s", lease->epoch,
			      lease->held ? HELD : FREE);

	return base_crc32c(base_crc32c(0, fields, (size_t)length), lease->holder,
			   strlen(lease->holder));
}

size_t local_lease_encode(const struct store_lease *lease, char to[LOCAL_LEASE_BYTES])
{
	int length =
		snprintf(to, LOCAL_LEASE_BYTES, HEAD "%" PRIu64 "%s%08" PRIx32 HOLDER "%s\n",
			 lease->epoch, lease->held ? HELD : FREE, record_crc(lease), lease->holder);

	base_assert(length > 0 && length < LOCAL_LEASE_BYTES);
	return (size_t)length;
}

/* Where @text goes on behind @word; NULL when it does not begin with it. */
static const char *skip(const char *text, const char *word)
{
	size_t length = strlen(word);

	return text != NULL && strncmp(text, word, length) == 0 ? text + length : NULL;
}

static const char *take_epoch(const char *text, uint64_t *ret_epoch)
{
	char *end = NULL;

	if (text == NULL || *text < '1' || *text > '9')
		return NULL;
	errno = 0;
	*ret_epoch = strtoull(text, &end, 10);
	return errno == 0 ? end : NULL;
}

static bool holder_take(const char *text, struct store_lease *lease)
{
	size_t length = strcspn(text, "\n");

	if (length >= sizeof(lease->holder) || text[length] != '\n' || text[length + 1] != '\0')
		return false;
	for (size_t i = 0; i < length; i++)
		if (iscntrl((unsigned char)text[i]) != 0)
			return false;
	memcpy(lease->holder, text, length);
	lease->holder[length] = '\0';
	return true;
}

int local_lease_decode(const void *data, size_t size_bytes, struct store_lease *ret_lease,
		       struct base_error *err)
{
	struct store_lease lease = { .epoch = STORE_EPOCH_NONE };
	char text[LOCAL_LEASE_BYTES];
	char again[LOCAL_LEASE_BYTES];
	const char *rest = NULL;
	const char *held = NULL;

	if (size_bytes >= sizeof(text) || memchr(data, '\0', size_bytes) != NULL)
		return base_fail(err, -EBADMSG, "lease record: %zu bytes of something else",
				 size_bytes);
	memcpy(text, data, size_bytes);
	text[size_bytes] = '\0';
	rest = take_epoch(skip(text, HEAD), &lease.epoch);
	held = skip(rest, HELD);
	lease.held = held != NULL;
	rest = lease.held ? held : skip(rest, FREE);
	if (rest == NULL || strlen(rest) < 8)
		return base_fail(err, -EBADMSG,
				 "lease record: expected '" HEAD "N state=held|free crc=...'");
	rest = skip(rest + 8, HOLDER); /* the checksum is compared as text below */
	if (rest == NULL || !holder_take(rest, &lease) || (!lease.held && lease.holder[0] != '\0'))
		return base_fail(err, -EBADMSG, "lease record: its holder cannot be read");
	if (local_lease_encode(&lease, again) != size_bytes || memcmp(again, text, size_bytes) != 0)
		return base_fail(err, -EBADMSG,
				 "lease record: epoch %" PRIu64 ": wrong checksum, expected "
				 "%08" PRIx32,
				 lease.epoch, record_crc(&lease));
	*ret_lease = lease;
	return 0;
}
