/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan says of an image: vm_image_decode(). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_error err = { 0 };
	struct vm_image image;
	struct vm_image again;
	char *text = malloc(size + 1);
	char *first = NULL;
	char *second = NULL;

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (vm_image_decode(text, &image, &err) < 0) {
		if (err.text[0] == '\0')
			abort();
		free(text);
		return 0;
	}
	/* A name that is accepted stays in its folder. */
	if (strchr(image.name, '/') != NULL || image.name[0] == '.' || image.name[0] == '\0')
		abort();
	first = vm_image_encode(&image);
	if (first == NULL || vm_image_decode(first, &again, &err) < 0)
		abort();
	second = vm_image_encode(&again);
	if (second == NULL || strcmp(first, second) != 0)
		abort();
	free(first);
	free(second);
	free(text);
	return 0;
}
