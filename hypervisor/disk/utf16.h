/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-16LE, as VHDX stores text, from and to UTF-8.  Any thread.
 * Source: RFC 2781 section 2 (UTF-16), RFC 3629 section 3 (UTF-8).
 */
#ifndef HYPERVISOR_DISK_UTF16_H
#define HYPERVISOR_DISK_UTF16_H

#include <stddef.h>
#include <stdint.h>

/**
 * disk_utf16_to_utf8 - @size_bytes at @from (even) as terminated UTF-8.
 * Strict: a lone surrogate or a NUL inside is -EILSEQ.
 * Return: bytes written without the terminator; -EILSEQ; -ENOSPC @capacity does not suffice.
 */
int disk_utf16_to_utf8(const uint8_t *from, size_t size_bytes, char *to, size_t capacity);

/**
 * disk_utf16_from_utf8 - terminated @from as UTF-16LE without a terminator.
 * Strict: overlong forms, surrogates and values past U+10FFFF are -EILSEQ.
 * Return: bytes written; -EILSEQ; -ENOSPC.
 */
int disk_utf16_from_utf8(const char *from, uint8_t *to, size_t capacity);

#endif
