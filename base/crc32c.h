/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected, initial and final
 * complement), the checksum of RFC 3720 appendix B.4, VHDX and iSCSI.
 * SSE4.2 where the processor has it, three streams at a time; a table otherwise.
 * Any thread.
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC of @size_bytes at @data continuing from @crc (0 for the first piece). */
uint32_t base_crc32c(uint32_t crc, const void *data, size_t size_bytes);

/* The portable code, for hosts without SSE4.2 and for the test that compares. */
uint32_t base_crc32c_portable(uint32_t crc, const void *data, size_t size_bytes);

/* CRC of A followed by B, from their own CRCs and B's length. */
uint32_t base_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b_bytes);

#endif
