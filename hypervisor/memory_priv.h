/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the hypervisor folder only: the mapping's address, for slat.c, which is the
 * one place that may write through it.
 */
#ifndef HYPERVISOR_MEMORY_PRIV_H
#define HYPERVISOR_MEMORY_PRIV_H

#include "hypervisor/memory.h"

uint8_t *hv_memory_base(const struct hv_memory *memory);

#endif
