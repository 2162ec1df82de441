/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A saved state from anywhere: its headers, all its payloads, and its memory into a
 * small VM.
 *
 * Checksums would keep random changes out, so each input is also tried with all its
 * checksums made right: then the checks behind them are what is tested.
 *
 * Reached through the reader: hv_state_file_header_decode(), hv_state_section_decode(),
 * hv_ram_table_decode().
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/file.h"
#include "hypervisor/ram_state.h"
#include "hypervisor/state_section.h"

#define MEMORY_BYTES    (64ULL << 20)
#define INPUT_BYTES_MAX (256u << 10)
#define BLOCK           HV_STATE_ALIGN_BYTES

static struct {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct base_pool *pool;
	int fd;
} world;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &world.memory, NULL) < 0 ||
	    hv_slat_new(world.memory, -1, &world.slat, NULL) < 0 ||
	    base_pool_new(1, "fuzz", &world.pool, NULL) < 0)
		abort();
	world.fd = memfd_create("state", MFD_CLOEXEC);
	return world.fd < 0 ? -1 : 0;
}

static void fix_crc(uint8_t *block)
{
	base_put_le32(block + 60, base_crc32c(0, block, 60));
}

/* Walk as a reader would and repair what the checksums cover. */
static void fix_checksums(uint8_t *bytes, size_t size)
{
	size_t at = BLOCK;

	if (size < BLOCK)
		return;
	fix_crc(bytes);
	while (size - at >= BLOCK) {
		uint8_t *header = bytes + at;
		uint64_t payload = base_get_le64(header + 40);

		at += BLOCK;
		if (payload > size - at)
			payload = size - at;
		base_put_le32(header + 48, base_crc32c(0, bytes + at, payload));
		fix_crc(header);
		if (hv_state_padded(payload) > size - at)
			return;
		at += hv_state_padded(payload);
	}
}

static void read_everything(void)
{
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };

	if (hv_state_reader_open(world.fd, &reader, &err) < 0)
		return;
	for (uint64_t i = 0; i < hv_state_section_count(reader); i++) {
		const struct hv_state_section *section = hv_state_section_at(reader, i);
		uint8_t *payload = NULL;

		if (hv_state_get(reader, section, &payload, &err) == 0)
			free(payload);
		if (strcmp(section->name, HV_STATE_RAM_NAME) != 0 &&
		    hv_state_find(reader, section->name, section->instance) == NULL)
			abort();
	}
	(void)hv_state_check_known(reader, NULL, 0, &err);
	if (hv_ram_restore(world.slat, world.pool, reader, NULL, &err) < 0 && err.code == 0)
		abort();
	hv_state_reader_free(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t fixed[INPUT_BYTES_MAX];

	if (size > sizeof(fixed))
		return -1;
	if (ftruncate(world.fd, 0) < 0 || base_pwrite_all(world.fd, data, size, 0) < 0)
		abort();
	read_everything();

	memcpy(fixed, data, size);
	fix_checksums(fixed, size);
	if (base_pwrite_all(world.fd, fixed, size, 0) < 0)
		abort();
	read_everything();
	return 0;
}
