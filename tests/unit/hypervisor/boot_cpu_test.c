/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot_image.h"

#define CODE_PORT 0x3F4u

static struct hv_boot_entry entry_of(enum hv_boot_mode mode)
{
	return (struct hv_boot_entry){ .mode = mode,
				       .entry = 0x1000200,
				       .info = 0x7000,
				       .page_table = 0x9000,
				       .gdt = 0x500,
				       .stack = 0x8FF0 };
}

/* What KVM gives at power-on, as far as it matters, with marks where it must be kept. */
static struct kvm_sregs power_on(void)
{
	return (struct kvm_sregs){ .cr0 = 0x60000010,
				   .cr2 = 1,
				   .cr3 = 2,
				   .cr4 = 4,
				   .cr8 = 5,
				   .cs = { .base = 0xFFFF0000, .selector = 0xF000 },
				   .idt = { .limit = 0xFFFF },
				   .apic_base = 0xFEE00900 };
}

Test(boot_cpu, long_mode_state)
{
	struct hv_boot_entry entry = entry_of(HV_BOOT_LONG64);
	struct kvm_sregs sregs = power_on();
	struct kvm_regs regs;

	memset(&regs, 0xFF, sizeof(regs));
	hv_boot_registers(&entry, &sregs, &regs);
	cr_assert_eq(regs.rip, 0x1000200);
	cr_assert_eq(regs.rsi, 0x7000);
	cr_assert_eq(regs.rsp, 0x8FF0);
	cr_assert_eq(regs.rflags, 2);
	cr_assert_eq(regs.rax | regs.rbx | regs.rcx | regs.rdx | regs.rdi | regs.rbp | regs.r15, 0);
	cr_assert_eq(sregs.cr0, 0x80000011);
	cr_assert_eq(sregs.cr3, 0x9000);
	cr_assert_eq(sregs.cr4, 0x20);
	cr_assert_eq(sregs.efer, 0x500);
	cr_assert_eq(sregs.cs.selector, 0x10);
	cr_assert_eq(sregs.cs.base, 0);
	cr_assert(sregs.cs.l == 1 && sregs.cs.db == 0 && sregs.cs.present == 1);
	cr_assert_eq(sregs.ss.selector, 0x18);
	cr_assert(sregs.ds.type == 3 && sregs.ds.s == 1 && sregs.ds.l == 0);
	cr_assert(sregs.tr.type == 11 && sregs.tr.s == 0 && sregs.tr.present == 1);
	cr_assert(sregs.gdt.base == 0x500 && sregs.gdt.limit == 31);
	cr_assert_eq(sregs.idt.limit, 0);
	cr_assert_eq(sregs.apic_base, 0xFEE00900, "the local APIC's base is kept");
	cr_assert_eq(sregs.cr8, 5);
}

Test(boot_cpu, pvh_state)
{
	struct hv_boot_entry entry = entry_of(HV_BOOT_PVH32);
	struct kvm_sregs sregs = power_on();
	struct kvm_regs regs;

	hv_boot_registers(&entry, &sregs, &regs);
	cr_assert_eq(regs.rip, 0x1000200);
	cr_assert_eq(regs.rbx, 0x7000);
	cr_assert_eq(regs.rsi, 0);
	cr_assert_eq(regs.rflags, 2);
	cr_assert_eq(sregs.cr0, 0x11, "protected mode, no paging");
	cr_assert_eq(sregs.cr3 | sregs.cr4 | sregs.efer, 0);
	cr_assert(sregs.cs.l == 0 && sregs.cs.db == 1 && sregs.cs.limit == 0xFFFFFFFF);
	cr_assert_eq(sregs.cs.type, 11);
	cr_assert(sregs.es.selector == 0x18 && sregs.es.g == 1);
	cr_assert(sregs.tr.type == 11 && sregs.tr.limit == 0x67);
}

Test(boot_cpu, a_mode_that_does_not_exist_is_a_bug, .signal = SIGABRT)
{
	struct hv_boot_entry entry = entry_of(HV_BOOT_INVALID);
	struct kvm_sregs sregs = power_on();
	struct kvm_regs regs;

	hv_boot_registers(&entry, &sregs, &regs);
}

Test(boot_cpu, gdt_in_memory_is_what_the_registers_hold)
{
	struct boot_vm vm = boot_vm_new(MEMORY_BYTES, -1);
	struct boot_file file = boot_elf();
	struct hv_boot_image image = boot_image_of(&file);
	struct hv_boot_entry entry = boot_assert_loaded(&vm, &image);

	cr_assert_eq(boot_peek64(vm.slat, entry.gdt), 0);
	cr_assert_eq(boot_peek64(vm.slat, entry.gdt + 8), 0);
	cr_assert_eq(boot_peek64(vm.slat, entry.gdt + 0x10), 0x00AF9B000000FFFF);
	cr_assert_eq(boot_peek64(vm.slat, entry.gdt + 0x18), 0x00CF93000000FFFF);

	file = boot_elf_pvh();
	entry = boot_assert_loaded(&vm, &image);
	cr_assert_eq(boot_peek64(vm.slat, entry.gdt + 0x10), 0x00CF9B000000FFFF);
	boot_vm_free(&vm);
}

/* A vCPU that enters a loaded kernel on this machine's KVM. */
struct machine {
	int kvm_fd;
	int vm_fd;
	int vcpu_fd;
	struct boot_vm vm;
	struct kvm_run *run;
	size_t run_bytes;
};

static struct machine machine_new(int kvm_fd)
{
	struct machine machine = { .kvm_fd = kvm_fd, .vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0) };

	cr_assert_geq(machine.vm_fd, 0);
	machine.vm = boot_vm_new(MEMORY_BYTES, machine.vm_fd);
	(void)ioctl(machine.vm_fd, KVM_SET_TSS_ADDR, (unsigned long)HV_GPA_VMX_TSS);
	machine.vcpu_fd = ioctl(machine.vm_fd, KVM_CREATE_VCPU, 0);
	cr_assert_geq(machine.vcpu_fd, 0);
	machine.run_bytes = (size_t)ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	machine.run = mmap(NULL, machine.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			   machine.vcpu_fd, 0);
	cr_assert_neq((void *)machine.run, MAP_FAILED);
	return machine;
}

static void machine_free(struct machine *machine)
{
	munmap(machine->run, machine->run_bytes);
	close(machine->vcpu_fd);
	boot_vm_free(&machine->vm);
	close(machine->vm_fd);
	close(machine->kvm_fd);
}

/* Long mode needs a vCPU that has it: give it all that KVM offers. */
static void offer_cpuid(const struct machine *machine)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));

	cr_assert_not_null(cpuid);
	cpuid->nent = 256;
	cr_assert_eq(ioctl(machine->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	cr_assert_eq(ioctl(machine->vcpu_fd, KVM_SET_CPUID2, cpuid), 0);
	free(cpuid);
}

/* The 32-bit value that the guest's first code writes to CODE_PORT. */
static uint32_t first_output(const struct boot_file *file)
{
	int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct hv_boot_image image = boot_image_of(file);
	struct hv_boot_entry entry;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct machine machine;
	uint32_t value;
	int rc;

	if (kvm_fd < 0)
		cr_skip_test("no usable /dev/kvm: %s", strerror(errno));
	machine = machine_new(kvm_fd);
	offer_cpuid(&machine);
	entry = boot_assert_loaded(&machine.vm, &image);
	cr_assert_eq(ioctl(machine.vcpu_fd, KVM_GET_SREGS, &sregs), 0);
	hv_boot_registers(&entry, &sregs, &regs);
	cr_assert_eq(ioctl(machine.vcpu_fd, KVM_SET_SREGS, &sregs), 0);
	cr_assert_eq(ioctl(machine.vcpu_fd, KVM_SET_REGS, &regs), 0);
	do {
		rc = ioctl(machine.vcpu_fd, KVM_RUN, 0);
	} while (rc < 0 && (errno == EINTR || errno == EAGAIN));
	cr_assert_eq(rc, 0, "KVM_RUN: %s", strerror(errno));
	cr_assert_eq(machine.run->exit_reason, KVM_EXIT_IO, "exit reason %u",
		     machine.run->exit_reason);
	cr_assert_eq(machine.run->io.port, CODE_PORT);
	memcpy(&value, (const uint8_t *)machine.run + machine.run->io.data_offset, sizeof(value));
	machine_free(&machine);
	return value;
}

Test(boot_cpu, kvm_enters_long_mode)
{
	static const uint8_t code[] = {
		0x8B, 0x86, 0x02, 0x02, 0x00, 0x00, /* mov 0x202(%rsi), %eax */
		0x66, 0xBA, 0xF4, 0x03,             /* mov $CODE_PORT, %dx */
		0xEF, 0xF4,                         /* out %eax, %dx; hlt */
	};
	struct boot_file file = boot_elf();

	memcpy(file.bytes + ELF_CODE + 16, code, sizeof(code));
	cr_assert_eq(first_output(&file), 0x53726448, "reads HdrS through the identity map");
}

Test(boot_cpu, kvm_enters_by_pvh)
{
	static const uint8_t code[] = {
		0x8E, 0xD8,                /* mov %eax, %ds: null selector */
		0xB8, 0x18, 0,    0,    0, /* mov $0x18, %eax */
		0x8E, 0xD8,                /* mov %eax, %ds: from the GDT in memory */
		0x8B, 0x03,                /* mov (%ebx), %eax */
		0x66, 0xBA, 0xF4, 0x03,    /* mov $CODE_PORT, %dx */
		0xEF, 0xF4,                /* out %eax, %dx; hlt */
	};
	struct boot_file file = boot_elf_pvh();

	memcpy(file.bytes + ELF_CODE + 32, code, sizeof(code));
	cr_assert_eq(first_output(&file), 0x336EC578, "reads the start info's magic");
}
