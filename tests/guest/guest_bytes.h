/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of messages at any alignment; the guest is little-endian, as the messages are. */
#ifndef GUEST_BYTES_H
#define GUEST_BYTES_H

#include <stdint.h>

#define GUEST_BYTES_ACCESS(bits)                                                                   \
	static inline uint##bits##_t guest_get##bits(const uint8_t *from)                          \
	{                                                                                          \
		uint##bits##_t value;                                                              \
                                                                                                   \
		__builtin_memcpy(&value, from, sizeof(value));                                     \
		return value;                                                                      \
	}                                                                                          \
	static inline void guest_put##bits(uint8_t *to, uint##bits##_t value)                      \
	{                                                                                          \
		__builtin_memcpy(to, &value, sizeof(value));                                       \
	}

GUEST_BYTES_ACCESS(16)
GUEST_BYTES_ACCESS(32)
GUEST_BYTES_ACCESS(64)

/* Big-endian, as SCSI and the internet have it. */
static inline uint16_t guest_get_be16(const uint8_t *from)
{
	return __builtin_bswap16(guest_get16(from));
}

static inline uint32_t guest_get_be32(const uint8_t *from)
{
	return __builtin_bswap32(guest_get32(from));
}

static inline uint64_t guest_get_be64(const uint8_t *from)
{
	return __builtin_bswap64(guest_get64(from));
}

static inline void guest_put_be16(uint8_t *to, uint16_t value)
{
	guest_put16(to, __builtin_bswap16(value));
}

static inline void guest_put_be32(uint8_t *to, uint32_t value)
{
	guest_put32(to, __builtin_bswap32(value));
}

static inline void guest_put_be64(uint8_t *to, uint64_t value)
{
	guest_put64(to, __builtin_bswap64(value));
}

#endif
