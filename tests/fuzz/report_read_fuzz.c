/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker tells of a move, and the page that is made of it: whatever was told, the page has
 * no markup but its own, and no number that is none. */
#include <stdlib.h>
#include <string.h>

#include "agent/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of the tags that a page may have; anything else came from outside. */
static int is_known(const char *tag)
{
	static const char *const known[] = {
		"!DOCTYPE", "html", "head", "meta",  "style", "title", "body", "h1",      "h2",
		"p",        "div",  "b",    "span",  "svg",   "desc",  "line", "text",    "path",
		"rect",     "g",    "i",    "table", "tr",    "th",    "td",   "details", "summary",
	};

	if (*tag == '/')
		tag++;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		size_t length = strlen(known[i]);

		if (strncmp(tag, known[i], length) == 0 && strchr(" >/", tag[length]) != NULL)
			return 1;
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct report *report = NULL;
	char *page = NULL;
	size_t bytes = 0;
	FILE *out = NULL;

	if (report_decode((const char *)data, size, &report, NULL) < 0)
		return 0;
	out = open_memstream(&page, &bytes);
	if (out == NULL)
		abort();
	report_page(report, out);
	(void)fclose(out);
	for (const char *at = strchr(page, '<'); at != NULL; at = strchr(at + 1, '<'))
		if (!is_known(at + 1))
			abort();
	/* No quote comes from outside. */
	for (const char *at = strstr(page, " d=\""); at != NULL; at = strstr(at + 1, " d=\""))
		if (strcspn(at + 4, "naif") < strcspn(at + 4, "\""))
			abort();
	if (strstr(page, "=\"nan") != NULL || strstr(page, "=\"-nan") != NULL ||
	    strstr(page, "=\"inf") != NULL)
		abort();
	free(page);
	free(report);
	return 0;
}
