/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/acpi_aml.h"

#include <string.h>

#include "base/error.h"
#include "base/hex.h"

/* ACPI 6.4, section 20.3: byte values of the terms we use. */
#define ZERO_OP        0x00u
#define ONE_OP         0x01u
#define NAME_OP        0x08u
#define BYTE_PREFIX    0x0Au
#define WORD_PREFIX    0x0Bu
#define DWORD_PREFIX   0x0Cu
#define STRING_PREFIX  0x0Du
#define QWORD_PREFIX   0x0Eu
#define SCOPE_OP       0x10u
#define BUFFER_OP      0x11u
#define PACKAGE_OP     0x12u
#define EXT_OP_PREFIX  0x5Bu
#define DEVICE_OP      0x82u
#define NAME_SEG_BYTES 4u
#define PKG_LENGTH_MAX 4u /* bytes of an encoded length */

/* Section 6.4.2: small resource descriptors. */
#define RESOURCE_IO  0x47u /* item 8, 7 bytes follow */
#define RESOURCE_IRQ 0x22u /* item 4, 2 bytes follow: edge, active high, exclusive */
#define RESOURCE_END 0x79u /* item 15, 1 byte follows: checksum, 0 = none */
#define IO_DECODE_16 0x01u
#define ISA_IRQS     16u

void hv_aml_fini(struct hv_aml *aml)
{
	base_buffer_fini(&aml->bytes);
}

/* PkgLength counts itself: section 20.2.4. */
static size_t encode_length(size_t content_bytes, uint8_t to[PKG_LENGTH_MAX])
{
	size_t extra = 0; /* bytes behind the lead byte */
	size_t total = content_bytes + 1;

	if (total < 0x40) {
		to[0] = (uint8_t)total;
		return 1;
	}
	do {
		extra++;
		total = content_bytes + 1 + extra;
		base_assert(extra < PKG_LENGTH_MAX);
	} while (total >> (4 + 8 * extra) != 0);
	to[0] = (uint8_t)(extra << 6 | (total & 0x0F));
	for (size_t i = 0; i < extra; i++)
		to[1 + i] = (uint8_t)(total >> (4 + 8 * i));
	return 1 + extra;
}

static void insert(struct base_buffer *bytes, size_t at, const void *from, size_t size_bytes)
{
	if (base_buffer_extend(bytes, size_bytes) == NULL)
		return;
	memmove(bytes->data + at + size_bytes, bytes->data + at,
		bytes->size_bytes - size_bytes - at);
	memcpy(bytes->data + at, from, size_bytes);
}

static void put_integer(struct base_buffer *bytes, uint64_t value)
{
	if (value <= 1) {
		base_buffer_u8(bytes, (uint8_t)(value == 0 ? ZERO_OP : ONE_OP));
	} else if (value <= UINT8_MAX) {
		base_buffer_u8(bytes, BYTE_PREFIX);
		base_buffer_u8(bytes, (uint8_t)value);
	} else if (value <= UINT16_MAX) {
		base_buffer_u8(bytes, WORD_PREFIX);
		base_buffer_le16(bytes, (uint16_t)value);
	} else if (value <= UINT32_MAX) {
		base_buffer_u8(bytes, DWORD_PREFIX);
		base_buffer_le32(bytes, (uint32_t)value);
	} else {
		base_buffer_u8(bytes, QWORD_PREFIX);
		base_buffer_le64(bytes, value);
	}
}

/* Section 20.2.2: an optional root character and one segment, padded with '_'. */
static void put_name(struct base_buffer *bytes, const char *name)
{
	char segment[NAME_SEG_BYTES] = { '_', '_', '_', '_' };
	size_t length;

	if (*name == '\\') {
		base_buffer_u8(bytes, '\\');
		name++;
	}
	length = strlen(name);
	base_assert(length >= 1 && length <= NAME_SEG_BYTES);
	memcpy(segment, name, length);
	for (size_t i = 0; i < length; i++) {
		bool is_digit = segment[i] >= '0' && segment[i] <= '9';

		base_assert(segment[i] == '_' || (segment[i] >= 'A' && segment[i] <= 'Z') ||
			    (is_digit && i > 0));
	}
	base_buffer_append(bytes, segment, sizeof(segment));
}

static void begin(struct hv_aml *aml, enum hv_aml_bracket kind)
{
	base_assert(aml->depth < HV_AML_DEPTH_MAX);
	aml->open[aml->depth].kind = kind;
	aml->open[aml->depth].content = aml->bytes.size_bytes;
	aml->depth++;
}

void hv_aml_scope_begin(struct hv_aml *aml, const char *name)
{
	base_buffer_u8(&aml->bytes, SCOPE_OP);
	begin(aml, HV_AML_PLAIN);
	put_name(&aml->bytes, name);
}

void hv_aml_device_begin(struct hv_aml *aml, const char *name)
{
	base_buffer_u8(&aml->bytes, EXT_OP_PREFIX);
	base_buffer_u8(&aml->bytes, DEVICE_OP);
	begin(aml, HV_AML_PLAIN);
	put_name(&aml->bytes, name);
}

void hv_aml_package_begin(struct hv_aml *aml, uint8_t element_count)
{
	base_buffer_u8(&aml->bytes, PACKAGE_OP);
	begin(aml, HV_AML_PLAIN);
	base_buffer_u8(&aml->bytes, element_count);
}

void hv_aml_resources_begin(struct hv_aml *aml)
{
	base_buffer_u8(&aml->bytes, BUFFER_OP);
	begin(aml, HV_AML_RESOURCES);
}

/* A buffer's byte count comes between its length and its content. */
static void insert_byte_count(struct hv_aml *aml, size_t content)
{
	struct base_buffer count = { 0 };

	put_integer(&count, aml->bytes.size_bytes - content);
	if (count.failed)
		aml->bytes.failed = true;
	else
		insert(&aml->bytes, content, count.data, count.size_bytes);
	base_buffer_fini(&count);
}

void hv_aml_end(struct hv_aml *aml)
{
	uint8_t length[PKG_LENGTH_MAX];
	size_t content;

	base_assert(aml->depth > 0);
	aml->depth--;
	content = aml->open[aml->depth].content;
	if (aml->open[aml->depth].kind == HV_AML_RESOURCES) {
		base_buffer_u8(&aml->bytes, RESOURCE_END);
		base_buffer_u8(&aml->bytes, 0);
		insert_byte_count(aml, content);
	}
	if (!aml->bytes.failed)
		insert(&aml->bytes, content, length,
		       encode_length(aml->bytes.size_bytes - content, length));
}

void hv_aml_name(struct hv_aml *aml, const char *name)
{
	base_buffer_u8(&aml->bytes, NAME_OP);
	put_name(&aml->bytes, name);
}

void hv_aml_integer(struct hv_aml *aml, uint64_t value)
{
	put_integer(&aml->bytes, value);
}

void hv_aml_string(struct hv_aml *aml, const char *text)
{
	base_buffer_u8(&aml->bytes, STRING_PREFIX);
	base_buffer_append(&aml->bytes, text, strlen(text) + 1);
}

/* Section 19.3.4: three letters of 5 bits, four hexadecimal digits, bytes swapped. */
void hv_aml_eisa_id(struct hv_aml *aml, const char id[8])
{
	uint32_t value = 0;

	for (size_t i = 0; i < 3; i++) {
		base_assert(id[i] >= 'A' && id[i] <= 'Z');
		value = value << 5 | (uint32_t)(id[i] - '@');
	}
	for (size_t i = 3; i < 7; i++) {
		base_assert(base_hex_digit(id[i]) >= 0);
		value = value << 4 | (uint32_t)base_hex_digit(id[i]);
	}
	hv_aml_integer(aml, __builtin_bswap32(value));
}

void hv_aml_io_ports(struct hv_aml *aml, uint16_t base, uint8_t port_count)
{
	base_assert(aml->depth > 0 && aml->open[aml->depth - 1].kind == HV_AML_RESOURCES);
	base_buffer_u8(&aml->bytes, RESOURCE_IO);
	base_buffer_u8(&aml->bytes, IO_DECODE_16);
	base_buffer_le16(&aml->bytes, base); /* lowest and highest base: it cannot be moved */
	base_buffer_le16(&aml->bytes, base);
	base_buffer_u8(&aml->bytes, 1); /* alignment */
	base_buffer_u8(&aml->bytes, port_count);
}

void hv_aml_irq(struct hv_aml *aml, uint32_t irq)
{
	base_assert(aml->depth > 0 && aml->open[aml->depth - 1].kind == HV_AML_RESOURCES);
	base_assert(irq < ISA_IRQS);
	base_buffer_u8(&aml->bytes, RESOURCE_IRQ);
	base_buffer_le16(&aml->bytes, (uint16_t)(1u << irq));
}
