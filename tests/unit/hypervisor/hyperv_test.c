/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic MSRs, hypercalls, reference time and the saved section, without KVM.
 * What must never happen: reference time that goes back, a call from elsewhere than the page or
 * from a guest's user, input that is read outside of the guest's memory.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "hypervisor/hyperv_priv.h"
#include "hypervisor/synic_priv.h"

#define MEMORY_BYTES (64ULL << 20)
#define VPS          2u
#define CALL_PAGE    0x5000ULL
#define INPUT        0x6000ULL
#define TSC_PAGE     0x7000ULL
#define POST         0x5cULL
#define SIGNAL       0x5dULL
#define FAST         (1ULL << 16)

__extension__ typedef unsigned __int128 wide;

struct world {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct hv_synic *synic;
	struct hv_hyperv *hyperv;
	uint32_t resets;
	char panic[8192];
	uint32_t panics;
	uint32_t posts;
	uint32_t signals;
	uint32_t connection;
	uint32_t type;
	uint32_t size_bytes;
	uint8_t payload[HV_MESSAGE_PAYLOAD_BYTES];
	uint16_t flag;
};

static void on_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	(void)context;
	(void)vp;
	(void)vector;
}

static void on_reset(void *context)
{
	((struct world *)context)->resets++;
}

static void on_panic(void *context, const char *text)
{
	struct world *world = context;

	cr_assert_lt(strlen(text), sizeof(world->panic));
	memcpy(world->panic, text, strlen(text) + 1);
	world->panics++;
}

static enum hv_status on_post(void *context, uint32_t connection_id, uint32_t type,
			      const uint8_t *payload, uint32_t size_bytes)
{
	struct world *world = context;

	world->posts++;
	world->connection = connection_id;
	world->type = type;
	world->size_bytes = size_bytes;
	memcpy(world->payload, payload, size_bytes);
	return HV_STATUS_INSUFFICIENT_BUFFERS;
}

static enum hv_status on_signal(void *context, uint32_t connection_id, uint16_t flag)
{
	struct world *world = context;

	world->signals++;
	world->connection = connection_id;
	world->flag = flag;
	return HV_STATUS_SUCCESS;
}

static const struct hv_synic_ops synic_ops = { .interrupt = on_interrupt };
static const struct hv_hyperv_ops ops = { .reset = on_reset, .panic = on_panic };
static const struct hv_hypercall_ops calls = { .post_message = on_post, .signal_event = on_signal };

static void world_init(struct world *world)
{
	memset(world, 0, sizeof(*world));
	cr_assert_eq(hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &world->memory, NULL), 0);
	cr_assert_eq(hv_slat_new(world->memory, -1, &world->slat, NULL), 0);
	cr_assert_eq(hv_synic_new(world->slat, VPS, &synic_ops, world, &world->synic, NULL), 0);
	cr_assert_eq(
		hv_hyperv_new(world->slat, world->synic, VPS, &ops, world, &world->hyperv, NULL),
		0);
	hv_hyperv_set_calls(world->hyperv, &calls, world);
}

static void world_fini(struct world *world)
{
	hv_hyperv_free(world->hyperv);
	hv_synic_free(world->synic);
	hv_slat_free(world->slat);
	hv_memory_free(world->memory);
}

static void set(struct world *world, uint32_t msr, uint64_t value)
{
	cr_assert_eq(hv_hyperv_write_msr(world->hyperv, 0, msr, value), 0, "msr 0x%x", msr);
}

static uint64_t get(struct world *world, uint32_t vp, uint32_t msr)
{
	uint64_t value = 0;

	cr_assert_eq(hv_hyperv_read_msr(world->hyperv, vp, msr, &value), 0, "msr 0x%x", msr);
	return value;
}

static void enable_calls(struct world *world)
{
	set(world, HV_MSR_GUEST_OS_ID, 1);
	set(world, HV_MSR_HYPERCALL, CALL_PAGE | HV_PAGE_ENABLE);
}

static uint32_t call(struct world *world, uint64_t control, uint64_t input)
{
	struct hv_hypercall request = { .control = control,
					.input = input,
					.rip_gpa = CALL_PAGE,
					.is_kernel = true,
					.is_long = true };

	return hv_hyperv_call(world->hyperv, &request);
}

Test(hyperv, hypercall_page_needs_an_os_id)
{
	struct world world;
	uint8_t stub[4];

	world_init(&world);
	set(&world, HV_MSR_HYPERCALL, CALL_PAGE | HV_PAGE_ENABLE);
	cr_assert_eq(get(&world, 0, HV_MSR_HYPERCALL), CALL_PAGE);
	enable_calls(&world);
	cr_assert_eq(get(&world, 1, HV_MSR_HYPERCALL), CALL_PAGE | HV_PAGE_ENABLE);
	cr_assert_eq(hv_slat_read(world.slat, CALL_PAGE, stub, sizeof(stub)), 0);
	cr_assert_arr_eq(stub, ((uint8_t[]){ 0xe5, HV_HYPERCALL_PORT, 0xc3, 0xcc }), 4);
	set(&world, HV_MSR_GUEST_OS_ID, 0);
	cr_assert_eq(get(&world, 0, HV_MSR_HYPERCALL), CALL_PAGE);
	cr_assert_eq(call(&world, SIGNAL | FAST, 1), UINT32_MAX, "the page is off");
	enable_calls(&world);
	set(&world, HV_MSR_HYPERCALL, CALL_PAGE | HV_PAGE_ENABLE | HV_HYPERCALL_LOCK);
	set(&world, HV_MSR_HYPERCALL, 0);
	cr_assert_eq(call(&world, SIGNAL | FAST, 1), 0, "it is locked");
	hv_hyperv_reset(world.hyperv);
	cr_assert_eq(get(&world, 0, HV_MSR_HYPERCALL), 0);
	enable_calls(&world);
	cr_assert_eq(hv_hyperv_write_msr(world.hyperv, 0, HV_MSR_HYPERCALL,
					 HV_GPA_LAPIC | HV_PAGE_ENABLE),
		     -EINVAL);
	world_fini(&world);
}

Test(hyperv, only_calls_from_the_page_count)
{
	struct world world;
	struct hv_hypercall request = { .control = SIGNAL | FAST, .input = 1 };

	world_init(&world);
	enable_calls(&world);
	request.is_kernel = true;
	request.is_long = true;
	request.rip_gpa = CALL_PAGE + HV_PAGE_BYTES;
	cr_assert_eq(hv_hyperv_call(world.hyperv, &request), UINT32_MAX);
	request.rip_gpa = UINT64_MAX;
	cr_assert_eq(hv_hyperv_call(world.hyperv, &request), UINT32_MAX);
	request.rip_gpa = CALL_PAGE + 2;
	request.is_kernel = false;
	cr_assert_eq(hv_hyperv_call(world.hyperv, &request), UINT32_MAX);
	request.is_kernel = true;
	request.is_long = false;
	cr_assert_eq(hv_hyperv_call(world.hyperv, &request), HV_STATUS_INVALID_HYPERCALL_INPUT);
	cr_assert_eq(world.signals, 0);
	request.is_long = true;
	cr_assert_eq(hv_hyperv_call(world.hyperv, &request), HV_STATUS_SUCCESS);
	cr_assert_eq(world.signals, 1);
	world_fini(&world);
}

Test(hyperv, signal_event)
{
	struct world world;
	uint64_t input = 0x0003000000000009ULL & 0xffffffffffffULL;

	world_init(&world);
	enable_calls(&world);
	cr_assert_eq(call(&world, SIGNAL | FAST, input | 5ULL << 32), 0);
	cr_assert_eq(world.connection, 9);
	cr_assert_eq(world.flag, 5);
	cr_assert_eq(call(&world, SIGNAL | FAST, 1ULL << 48), HV_STATUS_INVALID_PARAMETER);
	cr_assert_eq(hv_slat_write(world.slat, INPUT, &(uint64_t){ 77 }, 8), 0);
	cr_assert_eq(call(&world, SIGNAL, INPUT), 0);
	cr_assert_eq(world.connection, 77);
	cr_assert_eq(call(&world, SIGNAL, INPUT + 4), HV_STATUS_INVALID_ALIGNMENT);
	cr_assert_eq(call(&world, SIGNAL, MEMORY_BYTES), HV_STATUS_INVALID_PARAMETER);
	cr_assert_eq(call(&world, SIGNAL, UINT64_MAX & ~7ULL), HV_STATUS_INVALID_PARAMETER);
	hv_hyperv_set_calls(world.hyperv, NULL, NULL);
	cr_assert_eq(call(&world, SIGNAL | FAST, 1), HV_STATUS_INVALID_CONNECTION_ID);
	world_fini(&world);
}

static void put_post(struct world *world, uint32_t reserved, uint32_t type, uint32_t size_bytes)
{
	uint8_t input[256] = { 4 };

	base_put_le32(input + 4, reserved);
	base_put_le32(input + 8, type);
	base_put_le32(input + 12, size_bytes);
	for (uint32_t i = 16; i < sizeof(input); i++)
		input[i] = (uint8_t)i;
	cr_assert_eq(hv_slat_write(world->slat, INPUT, input, sizeof(input)), 0);
}

Test(hyperv, post_message)
{
	struct world world;

	world_init(&world);
	enable_calls(&world);
	put_post(&world, 0, 1, 240);
	cr_assert_eq(call(&world, POST, INPUT), HV_STATUS_INSUFFICIENT_BUFFERS, "as it says");
	cr_assert_eq(world.connection, 4);
	cr_assert_eq(world.type, 1);
	cr_assert_eq(world.size_bytes, 240);
	cr_assert_eq(world.payload[239], 255);
	cr_assert_eq(call(&world, POST | FAST, INPUT), HV_STATUS_INVALID_HYPERCALL_INPUT);
	cr_assert_eq(call(&world, POST, INPUT + 1), HV_STATUS_INVALID_ALIGNMENT);
	cr_assert_eq(call(&world, POST, INPUT + HV_PAGE_BYTES - 248), HV_STATUS_INVALID_ALIGNMENT);
	cr_assert_eq(call(&world, POST, MEMORY_BYTES), HV_STATUS_INVALID_PARAMETER);
	put_post(&world, 0, 1, 241);
	cr_assert_eq(call(&world, POST, INPUT), HV_STATUS_INVALID_PARAMETER);
	put_post(&world, 1, 1, 8);
	cr_assert_eq(call(&world, POST, INPUT), HV_STATUS_INVALID_PARAMETER);
	put_post(&world, 0, 0, 8);
	cr_assert_eq(call(&world, POST, INPUT), HV_STATUS_INVALID_PARAMETER);
	put_post(&world, 0, 0x80000001, 8);
	cr_assert_eq(call(&world, POST, INPUT), HV_STATUS_INVALID_PARAMETER);
	hv_hyperv_set_calls(world.hyperv, NULL, NULL);
	put_post(&world, 0, 1, 8);
	cr_assert_eq(call(&world, POST, INPUT), HV_STATUS_INVALID_CONNECTION_ID);
	cr_assert_eq(world.posts, 1);
	world_fini(&world);
}

Test(hyperv, control_words)
{
	struct world world;

	world_init(&world);
	enable_calls(&world);
	cr_assert_eq(call(&world, 8 | FAST, 0), HV_STATUS_SUCCESS);
	for (uint64_t code = 0; code < 40; code++)
		cr_assert_eq(call(&world, 0x100 + code, 0), HV_STATUS_INVALID_HYPERCALL_CODE);
	for (uint32_t bit = 17; bit < 64; bit++)
		cr_assert_eq(call(&world, SIGNAL | FAST | 1ULL << bit, 1),
			     HV_STATUS_INVALID_HYPERCALL_INPUT, "bit %u", bit);
	cr_assert_eq(world.signals, 0);
	world_fini(&world);
}

Test(hyperv, registers)
{
	struct world world;
	uint64_t value;

	world_init(&world);
	cr_assert_eq(get(&world, 1, HV_MSR_VP_INDEX), 1);
	cr_assert_eq(hv_hyperv_write_msr(world.hyperv, 0, HV_MSR_VP_INDEX, 0), -EINVAL);
	cr_assert_eq(hv_hyperv_write_msr(world.hyperv, 0, HV_MSR_REFERENCE_TIME, 0), -EINVAL);
	cr_assert_eq(get(&world, 0, HV_MSR_APIC_HZ), 1000000000);
	cr_assert_eq(hv_hyperv_read_msr(world.hyperv, 0, HV_MSR_TSC_HZ, &value), -EINVAL);
	cr_assert_eq(hv_hyperv_read_msr(world.hyperv, 0, 0x400000b0, &value), -EINVAL);
	cr_assert_eq(hv_hyperv_write_msr(world.hyperv, 0, 0x400000b0, 0), -EINVAL);
	cr_assert_eq(hv_hyperv_read_msr(world.hyperv, 0, 0x10, &value), -EINVAL);
	set(&world, HV_MSR_RESET, 0);
	cr_assert_eq(world.resets, 0);
	set(&world, HV_MSR_RESET, 1);
	cr_assert_eq(world.resets, 1);
	cr_assert_eq(hv_slat_write(world.slat, INPUT, "rubbish", 8), 0);
	set(&world, HV_MSR_VP_ASSIST, INPUT | HV_PAGE_ENABLE);
	cr_assert(base_is_zero(hv_slat_view(world.slat, INPUT, HV_PAGE_BYTES), HV_PAGE_BYTES));
	cr_assert_eq(get(&world, 0, HV_MSR_VP_ASSIST), INPUT | HV_PAGE_ENABLE);
	cr_assert_eq(get(&world, 1, HV_MSR_VP_ASSIST), 0);
	cr_assert_eq(hv_hyperv_write_msr(world.hyperv, 0, HV_MSR_VP_ASSIST, HV_GPA_LAPIC | 1),
		     -EINVAL);
	world_fini(&world);
}

Test(hyperv, a_crash_is_reported_with_its_words)
{
	struct world world;

	world_init(&world);
	cr_assert_eq(get(&world, 0, HV_MSR_CRASH_CTL), HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
	for (uint32_t i = 0; i < HV_CRASH_PARAMETERS; i++)
		set(&world, HV_MSR_CRASH_P0 + i, 0x10 + i);
	cr_assert_eq(get(&world, 0, HV_MSR_CRASH_P0 + 4), 0x14);
	set(&world, HV_MSR_CRASH_CTL, 0);
	cr_assert_str_empty(world.panic);
	set(&world, HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY);
	cr_assert_str_eq(world.panic, "guest crash 0x10 0x11 0x12 0x13 0x14");
	cr_assert_eq(hv_slat_write(world.slat, INPUT, "oh\x01no", 5), 0);
	set(&world, HV_MSR_CRASH_P0 + 3, INPUT);
	set(&world, HV_MSR_CRASH_P0 + 4, 5);
	set(&world, HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
	cr_assert_str_eq(world.panic, "guest crash 0x10 0x11 0x12 0x6000 0x5: oh.no");
	set(&world, HV_MSR_CRASH_P0 + 4, HV_PAGE_BYTES + 1); /* more than it may be */
	set(&world, HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | HV_CRASH_MESSAGE);
	cr_assert_null(strstr(world.panic, ": "));
	world_fini(&world);
}

Test(hyperv, a_storm_of_crashes_is_told_of_a_few_times_a_second)
{
	struct base_fake_clock fake = { .boot_ns = BASE_NS_PER_SECOND / 2 };
	struct base_clock clock = base_clock_fake(&fake);
	struct world world;

	world_init(&world);
	world.hyperv->clock.clock = &clock;
	for (uint32_t i = 0; i < 1000; i++)
		set(&world, HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY);
	cr_assert_eq(world.panics, HV_CRASHES_TOLD);
	fake.boot_ns += BASE_NS_PER_SECOND;
	set(&world, HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY);
	cr_assert_eq(world.panics, HV_CRASHES_TOLD + 1);
	world_fini(&world);
}

static struct hv_hyperv_clock clock_of(uint64_t guest_tsc, uint64_t hz, bool is_trusted)
{
	return (struct hv_hyperv_clock){ .host_tsc = base_tsc_read(),
					 .guest_tsc = guest_tsc,
					 .host_hz = hz,
					 .tsc_hz = hz,
					 .is_trusted = is_trusted,
					 .boot_ns = base_clock_boot_ns(&base_clock_system),
					 .clock = &base_clock_system };
}

struct page {
	uint32_t sequence;
	uint64_t scale;
	uint64_t offset;
};

static struct page read_page(struct world *world)
{
	const uint8_t *at = hv_slat_view(world->slat, TSC_PAGE, HV_PAGE_BYTES);

	return (struct page){ .sequence = base_get_le32(at),
			      .scale = base_get_le64(at + 8),
			      .offset = base_get_le64(at + 16) };
}

static uint64_t page_time(const struct page *page, uint64_t tsc)
{
	return (uint64_t)((wide)tsc * page->scale >> 64) + page->offset;
}

Test(hyperv, reference_page_and_register_are_one_clock)
{
	/* long after anything that the clock of before may have reached meanwhile */
	const uint64_t reference = 10000000000ULL;
	struct world world;
	struct hv_hyperv_clock clock;
	struct page page;
	uint64_t before;
	uint64_t after;

	world_init(&world);
	clock = clock_of(123456789, 2000000000, true);
	hv_hyperv_set_clock(world.hyperv, &clock, reference);
	set(&world, HV_MSR_REFERENCE_TSC, TSC_PAGE | HV_PAGE_ENABLE);
	page = read_page(&world);
	cr_assert_eq(page.sequence, 1);
	cr_assert_eq(page_time(&page, clock.guest_tsc), reference);
	cr_assert_eq(page_time(&page, clock.guest_tsc + 2000000000) / 10, reference / 10 + 1000000,
		     "a second");
	before = page_time(&page, clock.guest_tsc + base_tsc_read() - clock.host_tsc);
	after = get(&world, 0, HV_MSR_REFERENCE_TIME);
	cr_assert_geq(after, before);
	before = after;
	after = page_time(&page, clock.guest_tsc + base_tsc_read() - clock.host_tsc);
	cr_assert_geq(after, before);
	cr_assert_eq(get(&world, 0, HV_MSR_TSC_HZ), 2000000000);
	cr_assert_eq(hv_hyperv_write_msr(world.hyperv, 0, HV_MSR_REFERENCE_TSC, HV_GPA_LAPIC | 1),
		     -EINVAL);
	world_fini(&world);
}

Test(hyperv, reference_time_never_goes_back)
{
	struct world world;
	uint64_t last = 5000000000ULL;

	world_init(&world);
	set(&world, HV_MSR_REFERENCE_TSC, TSC_PAGE | HV_PAGE_ENABLE);
	for (uint32_t i = 0; i < 64; i++) {
		/* another rate, another TSC, trusted or not, and a reference that is too small */
		struct hv_hyperv_clock clock =
			clock_of(i * 977777777ULL, 100000000ULL * (i % 7 + 9), i % 3 != 0);
		struct page page;
		uint64_t now;

		hv_hyperv_set_clock(world.hyperv, &clock, i == 0 ? last : i);
		now = hv_hyperv_reference_time(world.hyperv);
		page = read_page(&world);
		cr_assert_geq(now, last, "step %u", i);
		cr_assert_eq(page.sequence == 0, i % 3 == 0, "step %u", i);
		if (page.sequence != 0)
			cr_assert_geq(page_time(&page, clock.guest_tsc), last);
		last = now;
	}
	world_fini(&world);
}

Test(hyperv, saved_and_loaded)
{
	struct world from;
	struct world to;
	struct base_buffer out = { .data = NULL };
	struct base_reader in;
	struct base_error err;
	struct hv_hyperv_clock clock = clock_of(1, 2000000000, true);
	uint64_t reference;

	world_init(&from);
	hv_hyperv_set_clock(from.hyperv, &clock, 1234567);
	enable_calls(&from);
	set(&from, HV_MSR_REFERENCE_TSC, TSC_PAGE | HV_PAGE_ENABLE);
	set(&from, HV_MSR_VP_ASSIST, INPUT | HV_PAGE_ENABLE);
	set(&from, HV_MSR_CRASH_P0 + 2, 99);
	reference = hv_hyperv_reference_time(from.hyperv);
	hv_hyperv_save(from.hyperv, &out);
	world_init(&to);
	for (size_t size = 0; size < out.size_bytes; size++) {
		in = base_reader_over(out.data, size);
		cr_assert_eq(hv_hyperv_load(to.hyperv, HV_HYPERV_VERSION, &in, &err), -EBADMSG);
		cr_assert_eq(get(&to, 0, HV_MSR_GUEST_OS_ID), 0, "nothing has changed");
	}
	in = base_reader_over(out.data, out.size_bytes);
	cr_assert_eq(hv_hyperv_load(to.hyperv, HV_HYPERV_VERSION + 1, &in, &err), -ENOTSUP);
	cr_assert_eq(hv_hyperv_load(to.hyperv, HV_HYPERV_VERSION, &in, &err), 0, "%s", err.text);
	cr_assert_eq(base_reader_left(&in), 0);
	cr_assert_geq(hv_hyperv_saved_reference(to.hyperv), reference);
	hv_hyperv_set_clock(to.hyperv, &clock, hv_hyperv_saved_reference(to.hyperv));
	cr_assert_geq(hv_hyperv_reference_time(to.hyperv), reference);
	cr_assert_eq(read_page(&to).sequence, 2, "the guest sees that it is another");
	cr_assert_eq(get(&to, 0, HV_MSR_HYPERCALL), CALL_PAGE | HV_PAGE_ENABLE);
	cr_assert_eq(call(&to, SIGNAL | FAST, 1), 0);
	cr_assert_eq(get(&to, 0, HV_MSR_VP_ASSIST), INPUT | HV_PAGE_ENABLE);
	cr_assert_eq(get(&to, 0, HV_MSR_CRASH_P0 + 2), 99);
	base_buffer_fini(&out);
	world_fini(&from);
	world_fini(&to);
}

static int load_patched(size_t offset, uint64_t value)
{
	struct world world;
	struct base_buffer out = { .data = NULL };
	struct base_reader in;
	int r;

	world_init(&world);
	hv_hyperv_save(world.hyperv, &out);
	base_put_le64(out.data + offset, value);
	in = base_reader_over(out.data, out.size_bytes);
	r = hv_hyperv_load(world.hyperv, HV_HYPERV_VERSION, &in, NULL);
	base_buffer_fini(&out);
	world_fini(&world);
	return r;
}

Test(hyperv, nonsense_is_not_loaded)
{
	uint64_t bad = HV_GPA_LAPIC | HV_PAGE_ENABLE;

	cr_assert_eq(load_patched(0, VPS), 0);
	cr_assert_eq(load_patched(0, VPS + 1), -EBADMSG);
	cr_assert_eq(load_patched(8, 1ULL << 60), -EBADMSG);     /* reference time */
	cr_assert_eq(load_patched(24, bad), -EBADMSG);           /* hypercall page */
	cr_assert_eq(load_patched(24, CALL_PAGE | 1), -EBADMSG); /* and no OS id */
	cr_assert_eq(load_patched(32, bad), -EBADMSG);           /* reference page */
	cr_assert_eq(load_patched(40 + 5 * 8, bad), -EBADMSG);   /* assist page */
}

Test(hyperv, leaves)
{
	struct hv_cpuid_table table = { .count = 0 };

	cr_assert_eq(hv_hyperv_cpuid(&table, VPS, NULL), 0);
	cr_assert_eq(hv_cpuid_register(&table, 0x40000000, 0, HV_CPUID_EBX), 0x7263694d);
	cr_assert_eq(hv_cpuid_register(&table, 0x40000003, 0, HV_CPUID_EAX), 0xae6);
	cr_assert_eq(hv_cpuid_register(&table, 0x40000003, 0, HV_CPUID_EBX), 0x30);
	cr_assert_eq(hv_cpuid_register(&table, 0x40000003, 0, HV_CPUID_EDX), 0x500);
	cr_assert_eq(hv_cpuid_register(&table, 0x40000004, 0, HV_CPUID_EAX), 0x220);
	cr_assert_eq(hv_cpuid_register(&table, 0x40000005, 0, HV_CPUID_EAX), VPS);
}
