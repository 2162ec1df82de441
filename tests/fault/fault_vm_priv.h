/* SPDX-License-Identifier: Apache-2.0 */
/* For the two sides of a fault test's VM. */
#ifndef TESTS_FAULT_VM_PRIV_H
#define TESTS_FAULT_VM_PRIV_H

#include "tests/fault/fault_vm.h"

/* The image, in standby. */
BASE_MUST_CHECK int fault_vm_open(struct fault_vm *vm, struct base_error *err);
/* The only one that runs it, and its disk; or standby again, and no more. */
BASE_MUST_CHECK int fault_vm_activate(struct fault_vm *vm, uint64_t epoch, struct base_error *err);
BASE_MUST_CHECK int fault_vm_deactivate(struct fault_vm *vm, struct base_error *err);

#endif
