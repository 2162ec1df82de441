/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: any bytes give a complete configuration or one line of text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vm_config config;
	struct base_error err = { 0 };

	if (size > VM_CONFIG_FILE_BYTES_MAX)
		return 0;
	if (vm_config_parse_text("fuzz", (const char *)data, size, &config, &err) < 0) {
		if (err.code == 0 || err.text[0] == '\0' || strpbrk(err.text, "\n\r\x1b") != NULL)
			abort(); /* a refusal says why, in one clean line */
		return 0;
	}
	if (config.vcpu_count < 1 || config.vcpu_count > HV_VCPUS_MAX ||
	    config.memory_bytes % HV_HUGE_PAGE_BYTES != 0 || config.name[0] == '\0' ||
	    memchr(config.cmdline, '\0', sizeof(config.cmdline)) == NULL ||
	    (config.kernel[0] == '\0' && config.restore[0] == '\0' && config.incoming[0] == '\0' &&
	     config.disk_count == 0))
		abort();
	return 0;
}
