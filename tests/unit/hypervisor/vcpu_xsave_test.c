/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended state between hosts that lay it out differently.
 */
#include "hypervisor/vcpu_xsave.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define AREA 4096u

/* Component 2 (AVX) where everyone has it, 9 (PKRU) where @offset says. */
static struct hv_xsave_layout host(uint32_t area_bytes, uint32_t offset)
{
	struct hv_xsave_layout layout = { .area_bytes = area_bytes };

	layout.places[2] = (struct hv_xsave_place){ 576, 256 };
	if (offset > 0)
		layout.places[9] = (struct hv_xsave_place){ offset, 8 };
	return layout;
}

static void make_area(uint8_t *area, uint32_t area_bytes, uint32_t pkru_offset)
{
	memset(area, 0, area_bytes);
	memset(area, 0x11, 512);
	base_put_le64(area + 512, 3 | 1 << 2 | (pkru_offset > 0 ? 1 << 9 : 0));
	memset(area + 576, 0x22, 256);
	if (pkru_offset > 0)
		memset(area + pkru_offset, 0x33, 8);
}

Test(vcpu_xsave, moves_components_between_layouts)
{
	struct hv_xsave_layout from = host(AREA, 2688);
	struct hv_xsave_layout to = host(2 * AREA, 4096);
	BASE_FREE struct hv_xsave *xsave = malloc(sizeof(*xsave));
	uint8_t area[2 * AREA];
	uint8_t expected[2 * AREA];
	struct base_error err = { 0 };

	make_area(area, AREA, 2688);
	cr_assert_eq(hv_xsave_unpack(&from, area, xsave, &err), 0, "%s", err.text);
	cr_assert_eq(xsave->data_bytes, 264);
	cr_assert_eq(hv_xsave_pack(&to, xsave, area, &err), 0, "%s", err.text);
	make_area(expected, 2 * AREA, 4096);
	cr_assert_arr_eq(area, expected, 2 * AREA);
	/* and back into the smaller one */
	cr_assert_eq(hv_xsave_unpack(&to, area, xsave, &err), 0);
	cr_assert_eq(hv_xsave_pack(&from, xsave, area, &err), 0);
	make_area(expected, AREA, 2688);
	cr_assert_arr_eq(area, expected, AREA);
}

Test(vcpu_xsave, component_the_host_lacks)
{
	struct hv_xsave_layout from = host(AREA, 2688);
	struct hv_xsave_layout to = host(AREA, 0);
	BASE_FREE struct hv_xsave *xsave = malloc(sizeof(*xsave));
	uint8_t area[AREA];
	struct base_error err = { 0 };

	make_area(area, AREA, 2688);
	cr_assert_eq(hv_xsave_unpack(&from, area, xsave, &err), 0);
	cr_assert_eq(hv_xsave_pack(&to, xsave, area, &err), -ENOTSUP);
	cr_assert_str_eq(err.text,
			 "XSAVE component 9 is in use with 8 bytes, this host has 0 for it");

	make_area(area, AREA, 2688);
	cr_assert_eq(hv_xsave_unpack(&to, area, xsave, &err), -ENOTSUP);
	cr_assert_str_eq(err.text, "XSAVE component 9 is in use, but CPUID gives it no place");

	make_area(area, AREA, 0); /* not in use: nobody needs it */
	cr_assert_eq(hv_xsave_unpack(&from, area, xsave, &err), 0);
	cr_assert_eq(hv_xsave_pack(&to, xsave, area, &err), 0);
}

Test(vcpu_xsave, sizes_that_differ)
{
	struct hv_xsave_layout from = host(AREA, 2688);
	struct hv_xsave_layout to = host(AREA, 2688);
	BASE_FREE struct hv_xsave *xsave = malloc(sizeof(*xsave));
	uint8_t area[AREA];
	struct base_error err = { 0 };

	to.places[9].size_bytes = 16;
	make_area(area, AREA, 2688);
	cr_assert_eq(hv_xsave_unpack(&from, area, xsave, &err), 0);
	cr_assert_eq(hv_xsave_pack(&to, xsave, area, &err), -ENOTSUP);
}

Test(vcpu_xsave, bit_63)
{
	struct hv_xsave_layout layout = host(AREA, 2688);
	BASE_FREE struct hv_xsave *xsave = malloc(sizeof(*xsave));
	uint8_t area[AREA];

	make_area(area, AREA, 0);
	area[519] = 0x80;
	cr_assert_eq(hv_xsave_unpack(&layout, area, xsave, NULL), -ENOTSUP);
}
