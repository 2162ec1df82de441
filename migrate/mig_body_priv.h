/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the codecs of bodies have in common.  Any thread.
 */
#ifndef MIGRATE_MIG_BODY_PRIV_H
#define MIGRATE_MIG_BODY_PRIV_H

#include "base/bytes.h"
#include "base/error.h"

/* -EBADMSG: the body of a @name is not of @expected bytes. */
int mig_body_size(const char *name, uint32_t size_bytes, uint32_t expected, struct base_error *err);
/* -EBADMSG: the next @size_bytes are not there, or not zero. */
int mig_body_zeros(const char *name, struct base_reader *in, size_t size_bytes,
		   struct base_error *err);
/* Bytes of @text that are kept of at most @most_bytes: whole characters. */
size_t mig_body_cut(const char *text, size_t most_bytes);

#endif
