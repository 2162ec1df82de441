/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_calls.h. */
#include "tests/guest/guest_calls.h"

#include "tests/guest/guest_call.h"
#include "tests/guest/guest_hv.h"

#define AT_ONCE 1000 /* calls within one trip to CPL 0, where interrupts are off */

/* The instructions of the hypercall page, run where they must not work. */
static uint32_t call_from_ring_3(uint64_t page)
{
	register uint64_t output __asm__("r8") = 0;
	uint64_t status, control = SUPER_CALL_SPIN_WAIT, input = 0;

	__asm__ volatile("call *%[entry]"
			 : "=a"(status), "+c"(control), "+d"(input), "+r"(output)
			 : [entry] "r"(page)
			 : "memory", "r9", "r10", "r11");
	return (uint32_t)status;
}

static uint64_t from_ring_3(struct guest_worker *w, uint64_t page, uint64_t count)
{
	uint64_t taken = 0;

	guest_call(SUPER_IOPL, 3, 0, 0);
	for (uint64_t i = 0; i < count; i++) {
		guest_work_observe(w);
		taken += call_from_ring_3(page) != UINT32_MAX;
	}
	guest_call(SUPER_IOPL, 0, 0, 0);
	return taken;
}

uint64_t guest_calls_run(struct guest_worker *w, const struct guest_command *command)
{
	uint64_t page = guest_hv_call_page(), left = command->args[0], taken = 0;
	uint64_t begin = guest_tsc();

	if (w->vcpu != 0 || page == 0)
		return 0;
	if (command->args[1] == TESTPAGE_CALL_USER_PAGE)
		return from_ring_3(w, page, left);
	if (command->args[1] == TESTPAGE_CALL_STRAY)
		page = 0;
	while (left != 0) {
		uint64_t some = left < AT_ONCE ? left : AT_ONCE;

		guest_work_observe(w);
		taken += guest_call(SUPER_CALLS, page, some, command->args[2]);
		left -= some;
	}
	guest_mmio_write(guest_options.testpage + TESTPAGE_CALL_NS,
			 (guest_tsc() - begin) * 1000000 / guest_tsc_khz);
	return taken;
}
