/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and outside text, as a report page shows them. */
#include <inttypes.h>
#include <string.h>

#include "agent/report.h"

void report_show_ns(uint64_t ns, char ret_text[REPORT_SHOWN_BYTES])
{
	double s = (double)ns / 1e9;

	if (ns < 1000000)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.3g µs", (double)ns / 1e3);
	else if (ns < 1000000000)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.1f ms", (double)ns / 1e6);
	else if (s < 120)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%.2f s", s);
	else if (s < 7200)
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%" PRIu64 " min %02" PRIu64 " s",
			       (uint64_t)(ns / 60000000000U), (uint64_t)(ns / 1000000000U % 60U));
	else
		(void)snprintf(ret_text, REPORT_SHOWN_BYTES, "%" PRIu64 " h %02" PRIu64 " min",
			       (uint64_t)(ns / 3600000000000U),
			       (uint64_t)(ns / 60000000000U % 60U));
}

void report_show_bytes(double bytes, char ret_text[REPORT_SHOWN_BYTES])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t unit = 0;

	while (bytes >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		bytes /= 1024;
		unit++;
	}
	(void)snprintf(ret_text, REPORT_SHOWN_BYTES,
		       unit == 0 || bytes >= 100 ? "%.0f %s"
		       : bytes >= 10             ? "%.1f %s"
						 : "%.2f %s",
		       bytes, units[unit]);
}

/* U+202A to U+202E and U+2066 to U+2069 turn around the text that stands beside them; C1 controls
 * (C2 80 to C2 9F) are none that a page may hold. */
static size_t unwanted(const unsigned char *at)
{
	if (at[0] == 0xe2 && at[1] == 0x80 && at[2] >= 0xaa && at[2] <= 0xae)
		return 3;
	if (at[0] == 0xe2 && at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9)
		return 3;
	if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f)
		return 2;
	return at[0] < ' ' || at[0] == 0x7f ? 1 : 0;
}

void report_escape(FILE *out, const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	while (*at != '\0') {
		size_t skip = unwanted(at);

		if (skip > 0) {
			(void)fputs("\xef\xbf\xbd", out);
			at += skip;
			continue;
		}
		if (*at == '<')
			(void)fputs("&lt;", out);
		else if (*at == '>')
			(void)fputs("&gt;", out);
		else if (*at == '&')
			(void)fputs("&amp;", out);
		else if (*at == '"')
			(void)fputs("&quot;", out);
		else if (*at == '\'')
			(void)fputs("&#39;", out);
		else
			(void)fputc(*at, out);
		at++;
	}
}
