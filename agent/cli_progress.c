/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cli_progress.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/cli.h"
#include "base/clock.h"

#define SHOW_EACH_NS    (200 * BASE_NS_PER_MS)
#define SAMPLE_NS       BASE_NS_PER_SECOND
#define COLUMNS_DEFAULT 80
#define COLUMNS_MIN     40
#define BAR_MIN         10
#define BAR_MAX         50
#define LEFT_MAX_S      (99 * 3600) /* longer is a guess nobody plans by */

static volatile sig_atomic_t stop;

static void note_stop(int signal_number)
{
	(void)signal_number;
	stop = 1;
}

void cli_stop_catch(void)
{
	struct sigaction action = { .sa_handler = note_stop, .sa_flags = (int)SA_RESETHAND };
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

	(void)sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct sigaction before;

		/* What nohup or a shell's background ignores stays ignored. */
		if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
			(void)sigaction(signals[i], &action, NULL);
	}
}

bool cli_stop_wanted(void)
{
	return stop != 0;
}

void cli_progress_begin(struct cli_progress *progress, FILE *out, const char *what, bool wanted,
			bool quiet)
{
	bool terminal = isatty(fileno(out)) == 1;

	*progress = (struct cli_progress){
		.out = out,
		.what = what,
		.bar = terminal && !quiet,
		.percent = !terminal && wanted && !quiet,
	};
}

static uint32_t columns(FILE *out)
{
	struct winsize size = { 0 };

	if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
		return COLUMNS_DEFAULT;
	return size.ws_col;
}

static uint32_t tenths(uint64_t done, uint64_t total)
{
	if (total == 0 || done >= total)
		return 1000;
	return (uint32_t)((double)done * 1000.0 / (double)total);
}

static void show_left(char *to, size_t to_bytes, const struct cli_progress_at *at)
{
	double left_s;
	uint64_t s;

	to[0] = '\0';
	if (at->bytes_per_s <= 0.0 || at->done_bytes >= at->total_bytes)
		return;
	left_s = (double)(at->total_bytes - at->done_bytes) / at->bytes_per_s;
	if (left_s > LEFT_MAX_S) {
		(void)snprintf(to, to_bytes, ", days left");
		return;
	}
	s = (uint64_t)left_s + 1;
	if (s >= 3600)
		(void)snprintf(to, to_bytes, ", %" PRIu64 ":%02" PRIu64 ":%02" PRIu64 " left",
			       s / 3600, s / 60 % 60, s % 60);
	else
		(void)snprintf(to, to_bytes, ", %" PRIu64 ":%02" PRIu64 " left", s / 60, s % 60);
}

void cli_progress_line(const struct cli_progress_at *at, char ret_line[CLI_PROGRESS_LINE_BYTES])
{
	uint32_t part = tenths(at->done_bytes, at->total_bytes);
	char rate[CLI_SIZE_SHOWN_BYTES] = "";
	char left[32];
	char tail[112];
	char bar[BAR_MAX + 1];
	size_t used;
	size_t bar_bytes;

	if (at->bytes_per_s > 0.0) {
		/* Whole MiB or KiB: digits that change 5 times a second are noise. */
		uint64_t rate_bytes = (uint64_t)at->bytes_per_s;
		uint64_t unit = rate_bytes >= 1ULL << 20 ? 1ULL << 20 : 1ULL << 10;

		(void)snprintf(rate, sizeof(rate), ", %" PRIu64 " %s/s", rate_bytes / unit,
			       unit == 1ULL << 20 ? "MiB" : "KiB");
	}
	show_left(left, sizeof(left), at);
	(void)snprintf(tail, sizeof(tail), "%3" PRIu32 ".%" PRIu32 " %%%s%s", part / 10, part % 10,
		       rate, left);
	used = strlen(at->what) + strlen(tail) + 4;
	bar_bytes = at->columns > used + BAR_MIN ? at->columns - used - 1 : 0;
	if (bar_bytes > BAR_MAX)
		bar_bytes = BAR_MAX;
	memset(bar, ' ', sizeof(bar));
	memset(bar, '#', bar_bytes * part / 1000);
	bar[bar_bytes] = '\0';
	if (bar_bytes > 0)
		(void)snprintf(ret_line, CLI_PROGRESS_LINE_BYTES, "%s [%s] %s", at->what, bar,
			       tail);
	else
		(void)snprintf(ret_line, CLI_PROGRESS_LINE_BYTES, "%s %s", at->what, tail);
}

/* The rate of the last seconds, smoothed: what the time left is guessed from. */
static void measure(struct cli_progress *progress, uint64_t now_ns, uint64_t done_bytes)
{
	double rate;

	if (now_ns - progress->sample_ns < SAMPLE_NS || done_bytes < progress->sample_bytes)
		return;
	rate = (double)(done_bytes - progress->sample_bytes) /
	       ((double)(now_ns - progress->sample_ns) / (double)BASE_NS_PER_SECOND);
	progress->bytes_per_s =
		progress->bytes_per_s > 0.0 ? progress->bytes_per_s * 0.7 + rate * 0.3 : rate;
	progress->sample_ns = now_ns;
	progress->sample_bytes = done_bytes;
}

static void show_bar(struct cli_progress *progress, uint64_t done_bytes, uint64_t total_bytes)
{
	char line[CLI_PROGRESS_LINE_BYTES];
	struct cli_progress_at at = {
		.what = progress->what,
		.done_bytes = done_bytes,
		.total_bytes = total_bytes,
		.bytes_per_s = progress->bytes_per_s,
		.columns = columns(progress->out),
	};

	if (at.columns < COLUMNS_MIN)
		at.columns = COLUMNS_MIN;
	cli_progress_line(&at, line);
	(void)fprintf(progress->out, "\r%s\x1b[K", line);
	(void)fflush(progress->out);
}

int cli_progress_step(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	struct cli_progress *progress = context;
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

	if (!progress->began) {
		progress->began = true;
		progress->sample_ns = now_ns;
		progress->sample_bytes = done_bytes;
	}
	measure(progress, now_ns, done_bytes);
	if (progress->bar &&
	    (now_ns - progress->shown_ns >= SHOW_EACH_NS || done_bytes >= total_bytes)) {
		progress->shown_ns = now_ns;
		show_bar(progress, done_bytes, total_bytes);
	} else if (progress->percent) {
		uint32_t part = tenths(done_bytes, total_bytes) / 100;

		if (part > progress->shown_tenths) {
			progress->shown_tenths = part;
			(void)fprintf(progress->out, "%s %" PRIu32 " %%\n", progress->what,
				      part * 10);
			(void)fflush(progress->out);
		}
	}
	return cli_stop_wanted() ? 1 : 0;
}

void cli_progress_end(struct cli_progress *progress)
{
	if (progress->bar && progress->began) {
		(void)fputs("\r\x1b[K", progress->out);
		(void)fflush(progress->out);
	}
}
