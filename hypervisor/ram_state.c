/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving and restoring guest memory, a chunk of 2 MiB per job.
 *
 * Save: a chunk is cut into runs (hypervisor/ram_codec.h) and written as one section
 * straight from guest memory.  Zero chunks are only noted, and written at the end
 * with their neighbours.
 *
 * Restore: a section's table is read and checked, its chunks are claimed (each once),
 * then raw pages are read straight into guest memory in pieces small enough to
 * be still in the cache when their CRC is computed.  Nothing is decompressed before the
 * CRC has matched.
 */
#include "hypervisor/ram_state.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "hypervisor/ram_codec.h"
#include "hypervisor/state_section.h"

#define TABLE_BYTES 12288u /* HV_RAM_TABLE_BYTES_MAX in whole blocks */
/* Read and checked at a time: several fit into a second-level cache. */
#define PIECE_BYTES (256u << 10)
#define PIECE_IOVS  64u

_Static_assert(TABLE_BYTES >= HV_RAM_TABLE_BYTES_MAX, "a table fits");
_Static_assert(HV_RAM_CHUNK_PAGES + 2 <= HV_STATE_PIECES_MAX, "a chunk is one write");

/* Buffers of one chunk that go from job to job: at most one per thread is made. */
struct scratch {
	struct scratch *next;
	uint8_t *chunk; /* HV_RAM_CHUNK_BYTES, page-aligned */
	uint8_t *table; /* TABLE_BYTES, page-aligned */
};

struct scratches {
	pthread_mutex_t lock; /* leaf */
	struct scratch *free;
};

enum chunk_mark {
	CHUNK_UNSEEN,
	CHUNK_ZERO,
	CHUNK_WRITTEN
};

struct ram_job {
	struct hv_slat *slat;
	struct hv_state_writer *writer;       /* save */
	const struct hv_state_reader *reader; /* restore */
	uint64_t page_count;
	uint64_t chunk_count;
	_Atomic uint8_t *marks; /* per chunk, enum chunk_mark */
	struct scratches scratches;
	_Atomic uint64_t zero_pages;
	_Atomic uint64_t raw_pages;
	_Atomic uint64_t lz4_pages;
	_Atomic uint64_t stored_bytes;
};

static void scratch_free(struct scratch *scratch)
{
	if (scratch == NULL)
		return;
	free(scratch->chunk);
	free(scratch->table);
	free(scratch);
}

static struct scratch *scratch_take(struct scratches *all)
{
	struct scratch *scratch = NULL;

	{
		BASE_LOCKED(&all->lock);
		scratch = all->free;
		if (scratch != NULL)
			all->free = scratch->next;
	}
	if (scratch != NULL)
		return scratch;
	scratch = calloc(1, sizeof(*scratch));
	if (scratch == NULL)
		return NULL;
	scratch->chunk = aligned_alloc(HV_PAGE_BYTES, HV_RAM_CHUNK_BYTES);
	scratch->table = aligned_alloc(HV_PAGE_BYTES, TABLE_BYTES);
	if (scratch->chunk == NULL || scratch->table == NULL) {
		scratch_free(scratch);
		return NULL;
	}
	return scratch;
}

static void scratch_give(struct scratches *all, struct scratch *scratch)
{
	BASE_LOCKED(&all->lock);
	scratch->next = all->free;
	all->free = scratch;
}

static int job_init(struct ram_job *job, struct hv_slat *slat, struct base_error *err)
{
	memset(job, 0, sizeof(*job));
	job->slat = slat;
	job->page_count = hv_slat_page_count(slat);
	job->chunk_count = job->page_count / HV_RAM_CHUNK_PAGES;
	base_assert(job->page_count % HV_RAM_CHUNK_PAGES == 0);
	job->marks = calloc(job->chunk_count, sizeof(*job->marks));
	if (job->marks == NULL)
		return base_fail(err, -ENOMEM, "ram: %" PRIu64 " marks", job->chunk_count);
	if (pthread_mutex_init(&job->scratches.lock, NULL) != 0) {
		free(base_take(&job->marks));
		return base_fail(err, -ENOMEM, "ram: mutex");
	}
	return 0;
}

static void job_fini(struct ram_job *job)
{
	if (job->marks == NULL)
		return;
	free(job->marks);
	for (struct scratch *s = job->scratches.free; s != NULL;) {
		struct scratch *next = s->next;

		scratch_free(s);
		s = next;
	}
	(void)pthread_mutex_destroy(&job->scratches.lock);
}

static void count_runs(struct ram_job *job, const struct hv_ram_table *table)
{
	uint64_t pages[HV_RAM_KINDS] = { 0 };

	for (uint32_t i = 0; i < table->run_count; i++)
		pages[table->runs[i].kind] += table->runs[i].page_count;
	atomic_fetch_add(&job->zero_pages, pages[HV_RAM_ZERO]);
	atomic_fetch_add(&job->raw_pages, pages[HV_RAM_RAW]);
	atomic_fetch_add(&job->lz4_pages, pages[HV_RAM_LZ4]);
	atomic_fetch_add(&job->stored_bytes,
			 hv_ram_table_bytes(table) + table->raw_bytes + table->lz4_bytes);
}

static void report(const struct ram_job *job, struct hv_ram_report *ret_report)
{
	if (ret_report == NULL)
		return;
	*ret_report = (struct hv_ram_report){
		.page_count = job->page_count,
		.zero_page_count = atomic_load(&job->zero_pages),
		.raw_page_count = atomic_load(&job->raw_pages),
		.lz4_page_count = atomic_load(&job->lz4_pages),
		.stored_bytes = atomic_load(&job->stored_bytes),
	};
}

/* Save. */

/* Mark chunks that the host never provided as zero. */
static int find_holes(struct ram_job *job, struct base_error *err)
{
	size_t words = hv_slat_word_count(job->slat);
	BASE_FREE uint64_t *touched = malloc(words * sizeof(*touched));

	if (touched == NULL)
		return base_fail(err, -ENOMEM, "ram: bitmap of %zu words", words);
	hv_slat_touched(job->slat, touched, NULL);
	for (uint64_t i = 0; i < job->chunk_count; i++) {
		const uint64_t *of_chunk = touched + i * (HV_RAM_CHUNK_PAGES / 64);
		uint64_t any = 0;

		for (uint64_t word = 0; word < HV_RAM_CHUNK_PAGES / 64; word++)
			any |= of_chunk[word];
		if (any == 0)
			atomic_store(&job->marks[i], CHUNK_ZERO);
	}
	return 0;
}

static int put_table(struct ram_job *job, const struct hv_ram_table *table, struct scratch *scratch,
		     struct base_error *err)
{
	static const struct hv_state_key key = { .name = HV_STATE_RAM_NAME,
						 .version = HV_RAM_VERSION };
	struct iovec pieces[HV_RAM_CHUNK_PAGES + 2];
	size_t count = 0;
	uint64_t page = table->first_page;

	hv_ram_table_encode(table, scratch->table);
	pieces[count++] = (struct iovec){ scratch->table, hv_ram_table_bytes(table) };
	for (uint32_t i = 0; i < table->run_count; i++) {
		const struct hv_ram_run *run = &table->runs[i];

		if (run->kind == HV_RAM_RAW) {
			const uint8_t *from = hv_slat_pages(job->slat, page, run->page_count);

			base_assert(from != NULL);
			memcpy(&pieces[count].iov_base, &from, sizeof(from)); /* only read from */
			pieces[count++].iov_len = run->stored_bytes;
		}
		page += run->page_count;
	}
	pieces[count++] = (struct iovec){ scratch->chunk, table->lz4_bytes };
	count_runs(job, table);
	return hv_state_putv(job->writer, &key, pieces, count, err);
}

static int save_chunk(void *context, uint64_t index, struct base_error *err)
{
	struct ram_job *job = context;
	struct scratch *scratch = NULL;
	struct hv_ram_table table;
	const uint8_t *pages = NULL;
	int r = 0;

	if (atomic_load(&job->marks[index]) == CHUNK_ZERO)
		return 0;
	table.first_page = index * HV_RAM_CHUNK_PAGES;
	pages = hv_slat_pages(job->slat, table.first_page, HV_RAM_CHUNK_PAGES);
	base_assert(pages != NULL);
	scratch = scratch_take(&job->scratches);
	if (scratch == NULL)
		return base_fail(err, -ENOMEM, "ram: buffer of a chunk");

	hv_ram_choose(pages, scratch->chunk, &table);
	if (table.run_count == 1 && table.runs[0].kind == HV_RAM_ZERO) {
		atomic_store(&job->marks[index], CHUNK_ZERO);
	} else {
		atomic_store(&job->marks[index], CHUNK_WRITTEN);
		r = put_table(job, &table, scratch, err);
	}
	scratch_give(&job->scratches, scratch);
	return r;
}

/* The zero chunks, neighbours together. */
static int save_zeros(struct ram_job *job, struct base_error *err)
{
	struct scratch *scratch = scratch_take(&job->scratches);
	uint64_t next = 0;
	int r = 0;

	if (scratch == NULL)
		return base_fail(err, -ENOMEM, "ram: buffer of a chunk");
	for (uint64_t i = 0; i < job->chunk_count && r == 0; i = next) {
		struct hv_ram_table table;
		uint8_t mark = atomic_load(&job->marks[i]);

		for (next = i + 1; next < job->chunk_count; next++) {
			if (atomic_load(&job->marks[next]) != mark)
				break;
		}
		if (mark != CHUNK_ZERO)
			continue;
		table.first_page = i * HV_RAM_CHUNK_PAGES;
		table.page_count = (next - i) * HV_RAM_CHUNK_PAGES;
		table.run_count = 1;
		table.runs[0] = (struct hv_ram_run){ HV_RAM_ZERO, 0, table.page_count };
		table.raw_bytes = 0;
		table.lz4_bytes = 0;
		r = put_table(job, &table, scratch, err);
	}
	scratch_give(&job->scratches, scratch);
	return r;
}

int hv_ram_save(struct hv_slat *slat, struct base_pool *pool, struct hv_state_writer *writer,
		struct hv_ram_report *ret_report, struct base_error *err)
{
	BASE_CLEANUP(job_fini) struct ram_job job = { 0 };
	int r = job_init(&job, slat, err);

	if (r < 0)
		return r;
	job.writer = writer;
	r = find_holes(&job, err);
	if (r >= 0)
		r = base_pool_each(pool, job.chunk_count, save_chunk, &job, err);
	if (r >= 0)
		r = save_zeros(&job, err);
	if (r < 0)
		return r;
	report(&job, ret_report);
	return 0;
}

/* Restore. */

/* A payload on its way: what was read of it, and its CRC so far. */
struct stream {
	int fd;
	uint64_t offset;
	uint32_t crc;
};

/* Read exactly into @pieces, then add them to the CRC while they are in the cache. */
static int stream_read(struct stream *stream, const struct iovec *pieces, size_t count,
		       struct base_error *err)
{
	size_t bytes = 0;
	ssize_t n = 0;

	for (size_t i = 0; i < count; i++)
		bytes += pieces[i].iov_len;
	n = preadv(stream->fd, pieces, (int)count, (off_t)stream->offset);
	if (n != (ssize_t)bytes) {
		/* Interrupted or short: once more, piece by piece, which also finds the reason. */
		uint64_t offset = stream->offset;

		for (size_t i = 0; i < count; i++) {
			int r = base_pread_all(stream->fd, pieces[i].iov_base, pieces[i].iov_len,
					       offset);

			if (r < 0)
				return base_fail_errno(err, r, "ram: read at offset %" PRIu64,
						       offset);
			offset += pieces[i].iov_len;
		}
	}
	for (size_t i = 0; i < count; i++)
		stream->crc = base_crc32c(stream->crc, pieces[i].iov_base, pieces[i].iov_len);
	stream->offset += bytes;
	return 0;
}

/* The table of runs; only blocks that the payload has are read. */
static int read_table(struct stream *stream, const struct hv_state_section *section,
		      uint8_t *buffer, struct hv_ram_table *ret_table, struct base_error *err)
{
	uint64_t have = hv_state_padded(section->payload_bytes);
	struct base_reader in;
	size_t bytes = 0;
	uint32_t runs = 0;
	int r = 0;

	if (have == 0)
		return base_fail(err, -EBADMSG, "ram: empty");
	r = base_pread_all(stream->fd, buffer, HV_PAGE_BYTES, stream->offset);
	runs = base_get_le32(buffer + 16);
	bytes = HV_PAGE_BYTES;
	/* Most chunks have few runs; the rest of a long table is read only where there is one. */
	if (r == 0 && runs > (HV_PAGE_BYTES - HV_RAM_TABLE_HEAD) / HV_RAM_RUN_BYTES) {
		bytes = have < TABLE_BYTES ? (size_t)have : TABLE_BYTES;
		r = base_pread_all(stream->fd, buffer + HV_PAGE_BYTES, bytes - HV_PAGE_BYTES,
				   stream->offset + HV_PAGE_BYTES);
	}
	if (r < 0)
		return base_fail_errno(err, r, "ram: read at offset %" PRIu64, stream->offset);

	if (bytes > section->payload_bytes)
		bytes = (size_t)section->payload_bytes;
	in = base_reader_over(buffer, bytes);
	r = hv_ram_table_decode(&in, section->payload_bytes, ret_table, err);
	if (r < 0)
		return r;
	stream->crc = base_crc32c(0, buffer, in.offset_bytes);
	stream->offset += in.offset_bytes;
	return 0;
}

static int claim(struct ram_job *job, const struct hv_ram_table *table, struct base_error *err)
{
	uint64_t first = table->first_page / HV_RAM_CHUNK_PAGES;
	uint64_t count = table->page_count / HV_RAM_CHUNK_PAGES;

	if (table->first_page > job->page_count ||
	    table->page_count > job->page_count - table->first_page)
		return base_fail(err, -EBADMSG,
				 "ram: %" PRIu64 " pages from %" PRIu64 ", there are %" PRIu64,
				 table->page_count, table->first_page, job->page_count);
	for (uint64_t i = first; i < first + count; i++) {
		if (atomic_exchange(&job->marks[i], CHUNK_WRITTEN) != CHUNK_UNSEEN)
			return base_fail(err, -EBADMSG, "ram: page %" PRIu64 " comes twice",
					 i * HV_RAM_CHUNK_PAGES);
	}
	return 0;
}

/* All raw runs, in pieces of up to PIECE_BYTES gathered over as many runs as that takes. */
static int read_raw(struct stream *stream, struct hv_slat *slat, const struct hv_ram_table *table,
		    struct base_error *err)
{
	struct iovec pieces[PIECE_IOVS];
	size_t count = 0;
	uint64_t gathered = 0;
	uint64_t page = table->first_page;
	int r = 0;

	for (uint32_t i = 0; i < table->run_count; page += table->runs[i++].page_count) {
		uint64_t left = table->runs[i].stored_bytes;
		uint8_t *to = NULL;

		if (table->runs[i].kind != HV_RAM_RAW)
			continue;
		to = hv_slat_arrival_pages(slat, page, table->runs[i].page_count);
		base_assert(to != NULL);
		while (left > 0) {
			uint64_t step =
				PIECE_BYTES - gathered < left ? PIECE_BYTES - gathered : left;

			pieces[count++] = (struct iovec){ to, step };
			gathered += step;
			to += step;
			left -= step;
			if (gathered < PIECE_BYTES && count < PIECE_IOVS)
				continue;
			r = stream_read(stream, pieces, count, err);
			if (r < 0)
				return r;
			count = 0;
			gathered = 0;
		}
	}
	return count > 0 ? stream_read(stream, pieces, count, err) : 0;
}

static int unpack_lz4(struct hv_slat *slat, const struct hv_ram_table *table, const uint8_t *from,
		      struct base_error *err)
{
	uint64_t page = table->first_page;

	for (uint32_t i = 0; i < table->run_count; page += table->runs[i++].page_count) {
		const struct hv_ram_run *run = &table->runs[i];
		int bytes = (int)(run->page_count * HV_PAGE_BYTES);
		uint8_t *to = NULL;

		if (run->kind != HV_RAM_LZ4)
			continue;
		to = hv_slat_arrival_pages(slat, page, run->page_count);
		base_assert(to != NULL);
		if (LZ4_decompress_safe((const char *)from, (char *)to, (int)run->stored_bytes,
					bytes) != bytes)
			return base_fail(err, -EBADMSG,
					 "ram: page %" PRIu64 ": %" PRIu32
					 " bytes of LZ4 do not decode to %d",
					 page, run->stored_bytes, bytes);
		from += run->stored_bytes;
	}
	return 0;
}

static int restore_section(struct ram_job *job, const struct hv_state_section *section,
			   struct scratch *scratch, struct base_error *err)
{
	struct stream stream = { .fd = hv_state_reader_fd(job->reader),
				 .offset = section->payload_offset };
	struct hv_ram_table table = { 0 };
	int r = read_table(&stream, section, scratch->table, &table, err);

	if (r < 0)
		return r;
	r = claim(job, &table, err);
	if (r < 0)
		return r;
	r = read_raw(&stream, job->slat, &table, err);
	if (r < 0)
		return r;
	if (table.lz4_bytes > 0) {
		/* Whole blocks, for O_DIRECT; the payload's padding is behind the last. */
		r = base_pread_all(stream.fd, scratch->chunk, hv_state_padded(table.lz4_bytes),
				   stream.offset);
		if (r < 0)
			return base_fail_errno(err, r, "ram: read at offset %" PRIu64,
					       stream.offset);
		stream.crc = base_crc32c(stream.crc, scratch->chunk, table.lz4_bytes);
	}
	r = hv_state_check_crc(section, stream.crc, err);
	if (r < 0)
		return r;
	count_runs(job, &table);
	return unpack_lz4(job->slat, &table, scratch->chunk, err);
}

static int restore_one(void *context, uint64_t index, struct base_error *err)
{
	struct ram_job *job = context;
	const struct hv_state_section *section = hv_state_section_at(job->reader, index);
	struct scratch *scratch = NULL;
	int r = 0;

	if (section == NULL || strcmp(section->name, HV_STATE_RAM_NAME) != 0)
		return 0;
	if (section->version != HV_RAM_VERSION)
		return base_fail(err, -ENOTSUP,
				 "saved state: section '%s' has version %" PRIu32
				 ", newest known is %u",
				 section->name, section->version, HV_RAM_VERSION);
	if (section->instance != 0 || section->optional)
		return base_fail(err, -EBADMSG,
				 "saved state: section '%s' with instance %" PRIu32 " or flags",
				 section->name, section->instance);
	scratch = scratch_take(&job->scratches);
	if (scratch == NULL)
		return base_fail(err, -ENOMEM, "ram: buffer of a chunk");
	r = restore_section(job, section, scratch, err);
	scratch_give(&job->scratches, scratch);
	if (r < 0)
		return base_fail_within(err, r, "section '%s' at offset %" PRIu64, section->name,
					section->payload_offset);
	return 0;
}

int hv_ram_restore(struct hv_slat *slat, struct base_pool *pool,
		   const struct hv_state_reader *reader, struct hv_ram_report *ret_report,
		   struct base_error *err)
{
	BASE_CLEANUP(job_fini) struct ram_job job = { 0 };
	int r = job_init(&job, slat, err);

	if (r < 0)
		return r;
	job.reader = reader;
	r = base_pool_each(pool, hv_state_section_count(reader), restore_one, &job, err);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < job.chunk_count; i++) {
		if (atomic_load(&job.marks[i]) == CHUNK_UNSEEN)
			return base_fail(err, -EBADMSG,
					 "saved state: RAM page %" PRIu64 " is in no section",
					 i * HV_RAM_CHUNK_PAGES);
	}
	report(&job, ret_report);
	return 0;
}
