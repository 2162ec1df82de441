/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C.
 *
 * Inside this file a CRC is "raw": without the complement at start and end.  In the
 * reflected representation bit 31 stands for x^0 and bit 0 for x^31.
 *
 * The processor's crc32 instruction takes three cycles but starts one per cycle, so
 * three neighbouring blocks run at a time.  A raw CRC over A is moved past the n bytes
 * of a later block by multiplying with x^(8n) mod P.  The instruction itself does the
 * reduction: crc32q(0, clmul(a, k)) is a*k*x^33 mod P (32 for what a CRC does, 1
 * because the product of two reflected 32-bit values has its x^0 in bit 62), hence
 * k = x^(8n - 33).
 */
#include "base/crc32c.h"

#include <immintrin.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78U /* 0x1EDC6F41 with its bits reversed */
#define ONE        0x80000000U /* x^0 */
#define SLICES     8
#define LINE_BYTES 64 /* of the cache */

/*
 * Bytes per stream: multiples of 8.  Three long ones are a 4 KiB page less 16 bytes, so
 * a page is one pass; three short ones are a sector less 8.
 */
#define LONG_BYTES  1360UL
#define SHORT_BYTES 168UL

typedef uint32_t (*crc_raw)(uint32_t raw, const uint8_t *data, size_t size_bytes);

/* Written by the constructor below, before main() and before any thread. */
static uint32_t slice_table[SLICES][256];
static uint32_t power_table[64]; /* [k] = x^(8 * 2^k) mod P */
static uint32_t long_shift[2];   /* x^(8n - 33) for n = one and two long streams */
static uint32_t short_shift[2];
static crc_raw crc_best;

/* a * b mod P. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (uint32_t bit = ONE; bit != 0; bit >>= 1) {
		if ((a & bit) != 0)
			product ^= b;
		b = (b & 1) != 0 ? b >> 1 ^ POLYNOMIAL : b >> 1; /* b *= x */
	}
	return product;
}

/* x^(8 * @size_bytes) mod P. */
static uint32_t power_of_bytes(uint64_t size_bytes)
{
	uint32_t power = ONE;

	for (size_t k = 0; size_bytes != 0; k++, size_bytes >>= 1) {
		if ((size_bytes & 1) != 0)
			power = multiply(power, power_table[k]);
	}
	return power;
}

/* x^@exponent mod P, step by step; for the few constants only. */
static uint32_t power_of_x(uint64_t exponent)
{
	uint32_t power = ONE;

	for (uint64_t i = 0; i < exponent; i++)
		power = (power & 1) != 0 ? power >> 1 ^ POLYNOMIAL : power >> 1;
	return power;
}

static uint64_t load64(const uint8_t *from)
{
	uint64_t value = 0;

	memcpy(&value, from, sizeof(value)); /* x86 is little-endian */
	return value;
}

static uint32_t raw_portable(uint32_t raw, const uint8_t *data, size_t size_bytes)
{
	for (; size_bytes >= 8; data += 8, size_bytes -= 8) {
		uint64_t word = load64(data) ^ raw;

		raw = 0;
		for (size_t i = 0; i < SLICES; i++)
			raw ^= slice_table[SLICES - 1 - i][word >> 8 * i & 0xff];
	}
	for (; size_bytes > 0; data++, size_bytes--)
		raw = raw >> 8 ^ slice_table[0][(raw ^ *data) & 0xff];
	return raw;
}

/* @raw moved past the bytes that @shift was made for; what follows is xored in later. */
__attribute__((target("sse4.2,pclmul"))) static inline uint64_t shifted(uint32_t raw,
									uint32_t shift)
{
	return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(
		_mm_cvtsi64_si128((int64_t)raw), _mm_cvtsi64_si128((int64_t)shift), 0));
}

/*
 * Three streams of @stream_bytes (a multiple of 8) side by side.  What is read next lies
 * @ahead_bytes further on (0: nothing does) and is called for meanwhile: the processor's
 * own prefetcher loses track of three streams within a page, which halves the speed.
 */
__attribute__((target("sse4.2,pclmul"))) static inline uint32_t
raw_three(uint32_t raw, const uint8_t *data, size_t stream_bytes, size_t ahead_bytes,
	  const uint32_t shift[2])
{
	const uint8_t *ahead = data + ahead_bytes;
	uint64_t first = raw;
	uint64_t second = 0;
	uint64_t third = 0;

	for (size_t i = 0; i < stream_bytes; i += 8) {
		if (i % LINE_BYTES == 0) {
			_mm_prefetch((const char *)(ahead + i), _MM_HINT_T0);
			_mm_prefetch((const char *)(ahead + stream_bytes + i), _MM_HINT_T0);
			_mm_prefetch((const char *)(ahead + 2 * stream_bytes + i), _MM_HINT_T0);
		}
		first = _mm_crc32_u64(first, load64(data + i));
		second = _mm_crc32_u64(second, load64(data + stream_bytes + i));
		third = _mm_crc32_u64(third, load64(data + 2 * stream_bytes + i));
	}
	/* One reduction serves both products: a CRC is linear. */
	return (uint32_t)third ^
	       (uint32_t)_mm_crc32_u64(0, shifted((uint32_t)first, shift[1]) ^
						  shifted((uint32_t)second, shift[0]));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t
raw_sse42(uint32_t raw, const uint8_t *data, size_t size_bytes)
{
	uint64_t wide = 0;

	for (; size_bytes >= 3 * LONG_BYTES; size_bytes -= 3 * LONG_BYTES) {
		size_t ahead_bytes = size_bytes >= 6 * LONG_BYTES ? 3 * LONG_BYTES : 0;

		raw = raw_three(raw, data, LONG_BYTES, ahead_bytes, long_shift);
		data += 3 * LONG_BYTES;
	}
	for (; size_bytes >= 3 * SHORT_BYTES; size_bytes -= 3 * SHORT_BYTES) {
		raw = raw_three(raw, data, SHORT_BYTES, 0, short_shift);
		data += 3 * SHORT_BYTES;
	}
	for (wide = raw; size_bytes >= 8; data += 8, size_bytes -= 8)
		wide = _mm_crc32_u64(wide, load64(data));
	for (raw = (uint32_t)wide; size_bytes > 0; data++, size_bytes--)
		raw = _mm_crc32_u8(raw, *data);
	return raw;
}

__attribute__((constructor)) static void crc32c_tables(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t raw = byte;

		for (int bit = 0; bit < 8; bit++)
			raw = (raw & 1) != 0 ? raw >> 1 ^ POLYNOMIAL : raw >> 1;
		slice_table[0][byte] = raw;
	}
	for (size_t slice = 1; slice < SLICES; slice++) {
		for (size_t byte = 0; byte < 256; byte++) {
			uint32_t before = slice_table[slice - 1][byte];

			slice_table[slice][byte] = before >> 8 ^ slice_table[0][before & 0xff];
		}
	}
	power_table[0] = power_of_x(8);
	for (size_t k = 1; k < sizeof(power_table) / sizeof(power_table[0]); k++)
		power_table[k] = multiply(power_table[k - 1], power_table[k - 1]);
	for (uint64_t i = 0; i < 2; i++) {
		long_shift[i] = power_of_x((i + 1) * 8 * LONG_BYTES - 33);
		short_shift[i] = power_of_x((i + 1) * 8 * SHORT_BYTES - 33);
	}
	__builtin_cpu_init(); /* constructors may run before the compiler's own */
	crc_best = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")
			   ? raw_sse42
			   : raw_portable;
}

uint32_t base_crc32c(uint32_t crc, const void *data, size_t size_bytes)
{
	return ~crc_best(~crc, data, size_bytes);
}

uint32_t base_crc32c_portable(uint32_t crc, const void *data, size_t size_bytes)
{
	return ~raw_portable(~crc, data, size_bytes);
}

uint32_t base_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b_bytes)
{
	/* The complements cancel: B's start value, moved past B, is also in crc_a's end. */
	return multiply(crc_a, power_of_bytes(size_b_bytes)) ^ crc_b;
}
