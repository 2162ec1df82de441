/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VSTOR packets over a channel, as a hostile guest sends them: whatever comes, every packet that
 * was taken is answered once or its channel is closed, nothing else than RAM is touched, and what
 * is written there is marked.  vstor_srb_decode() and scsi_plan() see what comes.
 *
 * Input: records of kind, run count, 64 bytes of message and the runs (le32 address, le16 length).
 *
 * Memory, loop, store and disk are made once, and are empty again for each input; the controller
 * and its channels are new ones.
 */
#define FAKE_PACKETS 256u

#include "base/log.h"
#include "hypervisor/disk/fake_store_priv.h"
#include "tests/fuzz/block_cache.h"
#include "tests/fuzz/fuzz_memory.h"
#include "tests/unit/storvsp/storvsp_rig.h"

#define RECORDS_MAX 64
#define DATA_PAGE   0x100u /* where data of seeds goes */
#define DATA_PAGES  64u

enum kind {
	KIND_INBAND,
	KIND_PAGES,
	KIND_SETTLE,
	KIND_REOPEN,
	KIND_RING,
	KIND_PAUSE,
	KIND_LUN,
	KIND_DATA,   /* count: a page behind DATA_PAGE, which begins with the message */
	KIND_MEDIUM, /* count: bits of enum medium_bits */
	KIND_PLAN,   /* count: bits of enum plan_bits */
	KINDS
};

enum medium_bits {
	MEDIUM_IN = 1,
	MEDIUM_RESIZED = 2,
	MEDIUM_STATUS = 4
};

enum plan_bits {
	PLAN_REORDER = 1,
	PLAN_DELAY_SHIFT = 1, /* three bits: turns of the loop */
	PLAN_FAIL = 16
};

#define DVD_LUN   1u
#define DVD_BYTES (1ULL << 20)

static struct fuzz_memory memory;
static struct disk *dvd;
static uint32_t blocks_used; /* by what is made once */

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void put(struct base_reader *in, bool pages, uint32_t count, const uint8_t *message)
{
	struct fake_packet *packet = fake_put(
		rig.channel, pages ? VMBUS_PACKET_GPA_DIRECT : VMBUS_PACKET_INBAND, rig.trans_id++);

	memcpy(packet->payload, message, FAKE_PAYLOAD);
	packet->header = calloc(count + 1, 16);
	base_assert(packet->header != NULL);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t gpa = base_read_le32(in);
		uint64_t length = base_read_le16(in);

		memcpy(packet->header + 16 * (size_t)i, &gpa, 8);
		memcpy(packet->header + 16 * (size_t)i + 8, &length, 8);
	}
	packet->header_bytes = 16 * count;
}

static void reopen(void)
{
	fake_close(rig.channel);
	rig_settle();
	base_assert(rig.channel->closed_called);
	fake_let_go();
	fake_open(rig.channel);
}

static void medium(uint8_t bits)
{
	struct storvsp_lun_status status;

	if ((bits & MEDIUM_STATUS) != 0) {
		storvsp_lun_status(rig.storvsp, bits >> 3, &status);
		return;
	}
	if ((bits & MEDIUM_RESIZED) != 0)
		storvsp_resized(rig.storvsp, 0);
	base_assert(storvsp_change_medium(rig.storvsp, DVD_LUN,
					  (bits & MEDIUM_IN) != 0 ? dvd : NULL, NULL) == 0);
}

/* How the store behaves from here on. */
static void plan(uint8_t bits, const uint8_t *message)
{
	rig_plan((struct fake_store_plan){
		.seed = base_get_le32(message),
		.reorder = (bits & PLAN_REORDER) != 0,
		.delay_steps = bits >> PLAN_DELAY_SHIFT & 7,
		.fail_at = (bits & PLAN_FAIL) != 0 ? 1 + message[4] % 8 : 0,
	});
}

static void step(struct base_reader *in)
{
	uint8_t kind = base_read_u8(in) % KINDS;
	uint8_t count = base_read_u8(in);
	uint8_t message[FAKE_PAYLOAD];

	base_read_bytes(in, message, sizeof(message));
	switch ((enum kind)kind) {
	case KIND_INBAND:
	case KIND_PAGES:
		put(in, kind == KIND_PAGES, count, message);
		break;
	case KIND_SETTLE:
		rig_settle();
		break;
	case KIND_REOPEN:
		reopen();
		break;
	case KIND_RING:
		rig.channel->room = count % 2 == 0 ? UINT32_MAX : count / 2;
		vmbus_channel_again(rig.channel);
		break;
	case KIND_PAUSE:
		rig_quiesce();
		rig_resume();
		break;
	case KIND_LUN:
		if (storvsp_detach(rig.storvsp, 0, NULL) != 0)
			rig_attach(0, rig.disk);
		break;
	case KIND_DATA:
		base_assert(hv_slat_write(memory.slat,
					  (DATA_PAGE + count % DATA_PAGES) * HV_PAGE_BYTES, message,
					  sizeof(message)) == 0);
		break;
	case KIND_MEDIUM:
		medium(count);
		break;
	case KIND_PLAN:
		plan(count, message);
		break;
	case KINDS:
		break;
	}
}

static void make_once(void)
{
	static struct disk_lab lab;

	base_log_init(2, BASE_LOG_ERR);
	fuzz_memory_init(&memory);
	disk_lab_init(&lab);
	disk_lab_make(&lab, "a.img", DISK_RAW, DISK_DYNAMIC, RIG_DISK, NULL);
	rig.disk = disk_lab_open(&lab, "a.img");
	disk_lab_make(&lab, "b.img", DISK_RAW, DISK_DYNAMIC, DVD_BYTES, NULL);
	dvd = disk_lab_open(&lab, "b.img");
	rig.lab = lab;
	blocks_used = block_cache_used();
}

static void begin(void)
{
	const struct disk_lab lab = rig.lab;
	const struct storvsp_medium drive = { .kind = STORVSP_DVD, .disk = dvd };
	struct disk *disk = rig.disk;

	memset(&rig, 0, sizeof(rig));
	rig.lab = lab;
	rig.disk = disk;
	rig.memory = memory.memory;
	rig.slat = memory.slat;
	rig.trans_id = 1;
	fake_quiesced = false;
	rig_controller();
	rig_attach(0, rig.disk);
	base_assert(storvsp_attach(rig.storvsp, DVD_LUN, &drive, NULL) == 0);
	rig_start();
}

/* Everything that is taken from now on is answered once. */
static void check_answers(void)
{
	uint64_t sent = 0;
	uint64_t answered = 0;

	rig_plan((struct fake_store_plan){ .seed = 0 });
	rig.channel->room = UINT32_MAX;
	vmbus_channel_again(rig.channel);
	rig_settle();
	rig.channel->out_head = rig.channel->out_tail;
	for (uint8_t i = 0; i < 3; i++) {
		(void)rig_put(0, (const uint8_t[16]){ 0 }, 0, 0);
		sent++;
	}
	rig_settle();
	for (const struct fake_packet *packet = fake_get(rig.channel); packet != NULL;
	     packet = fake_get(rig.channel))
		answered += packet->type == VMBUS_PACKET_COMPLETION;
	base_assert(answered == sent);
}

static void end(void)
{
	struct fake_store *store = fake_of(rig.lab.store);

	storvsp_free(rig.storvsp);
	rig_settle();
	for (uint32_t i = 0; i < store->names.count; i++) {
		struct fake_content *content = store->names.names[i]->content;

		base_assert(content->size_bytes == RIG_DISK || content->size_bytes == DVD_BYTES);
		base_assert(fake_content_clear(content, 0, content->size_bytes, true) == 0);
	}
	base_assert(block_cache_used() == blocks_used);
	fuzz_memory_reset(&memory, 0, DATA_PAGE + DATA_PAGES);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct base_reader in = base_reader_over(input, size);

	if (memory.slat == NULL)
		make_once();
	begin();
	for (uint32_t i = 0; i < RECORDS_MAX && base_reader_left(&in) > 0; i++)
		step(&in);
	check_answers();
	end();
	return 0;
}
