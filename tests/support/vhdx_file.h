/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: VHDX files on a fake store, opened, written to and bent by hand.
 *
 * A failure of the helpers themselves ends the program with a text.  One thread.
 */
#ifndef SUPPORT_VHDX_FILE_H
#define SUPPORT_VHDX_FILE_H

#include "hypervisor/disk/fake_store.h"
#include "hypervisor/disk/vhdx_priv.h"

struct vhdx_world {
	struct base_io_loop *loop; /* not started: the test pumps it */
	struct store *store;
};

void vhdx_world_init(struct vhdx_world *world);
void vhdx_world_fini(struct vhdx_world *world);

/* A dynamic disk of 1 GiB in blocks of 1 MiB: log at 1 MiB, metadata at 2 MiB, BAT at 3 MiB, data
 * from 4 MiB on. */
void vhdx_file_make(struct vhdx_world *world, const char *name);
int vhdx_file_open(struct vhdx_world *world, const char *name, struct image **ret_image,
		   struct base_error *err);
/* One request, waited for. */
int vhdx_file_io(struct image *image, enum disk_op op, uint64_t offset_bytes, void *data,
		 uint64_t length_bytes);

void vhdx_file_peek(struct vhdx_world *world, const char *name, uint64_t offset_bytes, void *to,
		    uint64_t length_bytes);
void vhdx_file_poke(struct vhdx_world *world, const char *name, uint64_t offset_bytes,
		    const void *from, uint64_t length_bytes);
/* Current header; and writing one, to both slots, @header->sequence and one more. */
struct vhdx_header vhdx_file_header(struct vhdx_world *world, const char *name);
void vhdx_file_set_header(struct vhdx_world *world, const char *name, struct vhdx_header header);

/* A log entry built by hand: data descriptors and zero descriptors in any order. */
struct vhdx_log_piece {
	uint64_t file_offset;
	uint64_t zero_bytes; /* 0: a page filled with @fill */
	uint8_t fill;
};
/* Into @to, which has room; its length. */
uint32_t vhdx_log_craft(const struct vhdx_log_entry *entry, const struct vhdx_log_piece *pieces,
			uint32_t piece_count, uint8_t *to);
/* Into the log of a file, at @log_offset within the log, around its end if need be. */
uint32_t vhdx_file_log(struct vhdx_world *world, const char *name, uint32_t log_offset,
		       const struct vhdx_log_entry *entry, const struct vhdx_log_piece *pieces,
		       uint32_t piece_count);

#endif
