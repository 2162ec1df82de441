/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/support/depth.h"
#include "tests/support/disk_crash_priv.h"

#define FAILURES_MAX    3U /* of one case: more of the same say nothing new */
#define STANDBY_SAMPLES 3U
#define REST_SAMPLES    4U
#define LIFE_WRITES     6U
#define LIFE_EACH       8U /* every so many points the disk is written to afterwards */
#define AGAIN_EACH      8U /* every so many points the power fails in the recovery, too */
#define PAGE            4096U
#define ROUNDS          5U   /* runs of each case with other random numbers */
#define ROUND_SEEDS     1000 /* between the seeds of two rounds */
#define FAIL_STEP       7U   /* between the requests that fail in two rounds */

struct point {
	uint32_t round;
	uint64_t event_count;
	enum fake_store_loss loss;
	uint64_t seed;
};

static const char *const loss_names[FAKE_LOSSES] = {
	[FAKE_LOSE_NONE] = "none",
	[FAKE_LOSE_ALL] = "all",
	[FAKE_LOSE_SOME] = "some",
	[FAKE_LOSE_SECTORS] = "sectors",
};

/* For whoever ends this program in the middle of a point. */
static char current_point[512];

static void point_print(const char *program, const struct crash_case *plan, struct point point)
{
	(void)snprintf(current_point, sizeof(current_point),
		       "reproduce: %s --point %s:%u:%" PRIu64 ":%s:%" PRIu64 "\n", program,
		       plan->name, point.round, point.event_count, loss_names[point.loss],
		       point.seed);
}

static void on_abort(int signal_number)
{
	(void)!write(STDERR_FILENO, current_point, strlen(current_point));
	(void)signal(signal_number, SIG_DFL);
	(void)raise(signal_number);
}

static void disk_closep(struct disk **disk)
{
	disk_close(*disk);
}

static void store_freep(struct store **store)
{
	store_free(*store);
}

static const char *top_at(const struct crash *crash, const struct store *image,
			  uint64_t event_count)
{
	const struct crash_top *top = &crash->tops[0];
	uint64_t bytes;

	for (uint32_t i = 1; i < crash->top_count; i++)
		if (crash->tops[i].from_count <= event_count)
			top = &crash->tops[i];
	if (top->names[1][0] != '\0' && !fake_store_file_bytes(image, top->names[0], &bytes))
		return top->names[1];
	return top->names[0];
}

/* A read somewhere in what was written, or anywhere. */
static bool compare_sample(const struct crash *crash, struct disk *disk, uint64_t event_count,
			   uint64_t random, bool written, char *why)
{
	const struct crash_model *model = &crash->model;
	struct disk_geometry geometry;
	uint64_t offset_bytes;

	disk_geometry(disk, &geometry);
	if (written && model->written_count == 0)
		return true;
	if (written)
		offset_bytes = model->written[random % model->written_count] * CRASH_SECTOR;
	else
		offset_bytes = random % geometry.size_bytes;
	offset_bytes = offset_bytes / PAGE * PAGE;
	if (offset_bytes + PAGE > geometry.size_bytes)
		return true;
	return crash_compare_run(crash, disk, event_count, offset_bytes, PAGE, why);
}

/* --- check --- */

struct damage {
	char *why;
	uint64_t count;
};

static void on_finding(void *context, enum disk_finding finding, const char *text)
{
	struct damage *damage = context;

	if (finding != DISK_DAMAGE)
		return;
	if (damage->count++ == 0)
		(void)snprintf(damage->why, CRASH_WHY_BYTES, "check: %s", text);
}

static bool check_image(const struct crash *crash, struct store *image, const char *name, char *why)
{
	struct disk_options options = crash_options(crash, image, name);
	struct damage damage = { .why = why };
	struct disk_check_result result;
	struct base_error err = { .code = 0 };

	if (disk_check(&options, false, on_finding, &damage, &result, &err) < 0) {
		(void)snprintf(why, CRASH_WHY_BYTES, "check '%s': %s", name, err.text);
		return false;
	}
	return damage.count == 0;
}

/* --- the disk goes on --- */

static bool page_was_written(const struct crash_model *model, uint64_t offset_bytes)
{
	for (uint64_t i = 0; i < PAGE / CRASH_SECTOR; i++)
		if (crash_model_was_written(model, offset_bytes / CRASH_SECTOR + i))
			return true;
	return false;
}

/* Write where nothing was: new space must not be any that the disk still uses. */
static int life_write(const struct crash *crash, struct disk *disk, uint64_t *random,
		      struct base_error *err)
{
	const struct crash_model *model = &crash->model;
	struct disk_geometry geometry;
	int code = 0;

	disk_geometry(disk, &geometry);
	for (uint32_t i = 0; i < LIFE_WRITES && code == 0; i++) {
		uint64_t offset_bytes;

		*random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
		if (i % 2 == 0 || model->written_count == 0)
			offset_bytes = (*random >> 16) % geometry.size_bytes;
		else
			offset_bytes = model->written[(*random >> 16) % model->written_count] *
					       CRASH_SECTOR +
				       (*random >> 40) % 65536;
		offset_bytes = offset_bytes / PAGE * PAGE;
		if (offset_bytes + PAGE > geometry.size_bytes ||
		    page_was_written(model, offset_bytes))
			continue;
		memset(crash->buffer, CRASH_AFTER, PAGE);
		code = disk_do(disk, DISK_WRITE, offset_bytes, crash->buffer, PAGE, err);
	}
	return code == 0 ? disk_do(disk, DISK_FLUSH, 0, NULL, 0, err) : code;
}

static bool live_on(const struct crash *crash, struct store *image, struct disk **disk,
		    struct point point, char *why)
{
	struct disk_options options = crash_options(crash, image, "");
	struct disk_layer_info info;
	struct base_error err = { .code = 0 };
	uint64_t random = point.seed + 77;

	if (life_write(crash, *disk, &random, &err) < 0 || disk_layer(*disk, 0, &info, &err) < 0) {
		(void)snprintf(why, CRASH_WHY_BYTES, "a write afterwards: %s", err.text);
		return false;
	}
	if (!crash_compare(crash, *disk, point.event_count, why))
		return false;
	disk_close(base_take(disk));
	options.name = info.name;
	if (disk_open_standby(&options, disk, &err) < 0) {
		(void)snprintf(why, CRASH_WHY_BYTES, "opened once more: %s", err.text);
		return false;
	}
	return crash_compare(crash, *disk, point.event_count, why);
}

/* --- one point --- */

static bool point_look(const struct crash *crash, struct store *image, struct point point,
		       char names[][STORE_NAME_BYTES], uint32_t *ret_count, char *why)
{
	struct disk_options options =
		crash_options(crash, image, top_at(crash, image, point.event_count));
	BASE_CLEANUP(disk_closep) struct disk *disk = NULL;
	struct base_error err = { .code = 0 };
	struct disk_layer_info info;
	uint64_t random = point.seed;

	if (disk_open_standby(&options, &disk, &err) < 0) {
		(void)snprintf(why, CRASH_WHY_BYTES, "open '%s': %s", options.name, err.text);
		return false;
	}
	for (uint32_t i = 0; i < STANDBY_SAMPLES; i++) {
		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		if (!compare_sample(crash, disk, point.event_count, random >> 16, true, why))
			return false;
	}
	if (point.seed % 4 == 0 && !check_image(crash, image, options.name, why))
		return false;
	if (disk_activate(disk, STORE_EPOCH_NONE, NULL, &err) < 0) {
		(void)snprintf(why, CRASH_WHY_BYTES, "activate: %s", err.text);
		return false;
	}
	if (!crash_compare(crash, disk, point.event_count, why))
		return false;
	for (uint32_t i = 0; i < REST_SAMPLES; i++) {
		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		if (!compare_sample(crash, disk, point.event_count, random >> 16, false, why))
			return false;
	}
	for (*ret_count = 0; *ret_count < CRASH_TOPS; (*ret_count)++) {
		if (disk_layer(disk, *ret_count, &info, NULL) < 0)
			break;
		memcpy(names[*ret_count], info.name, STORE_NAME_BYTES);
	}
	if (point.seed % LIFE_EACH == 1)
		return live_on(crash, image, &disk, point, why);
	return true;
}

/* The power fails once more, while the disk recovers; *@image becomes what that leaves. */
static bool fail_again(const struct crash *crash, struct store **image, struct point point,
		       char *why)
{
	struct disk_options options =
		crash_options(crash, *image, top_at(crash, *image, point.event_count));
	BASE_CLEANUP(store_freep) struct store *first = *image;
	struct base_error err = { .code = 0 };
	struct disk *disk = NULL;
	uint64_t count;
	int code = fake_store_record(first, &err);

	*image = NULL;
	if (code == 0)
		code = disk_open_standby(&options, &disk, &err);
	if (code == 0)
		code = disk_activate(disk, STORE_EPOCH_NONE, NULL, &err);
	disk_close(disk);
	count = fake_store_event_count(first);
	if (code == 0)
		code = fake_store_crash(first, (point.seed / AGAIN_EACH) % (count + 1),
					(enum fake_store_loss)(FAKE_LOSE_NONE + point.seed / 4 % 4),
					point.seed, image, &err);
	if (code < 0)
		(void)snprintf(why, CRASH_WHY_BYTES, "recovery: %s", err.text);
	return code == 0;
}

static bool point_check(const struct crash *crash, struct point point, char *why)
{
	BASE_CLEANUP(store_freep) struct store *image = NULL;
	char names[CRASH_TOPS][STORE_NAME_BYTES];
	struct base_error err = { .code = 0 };
	uint32_t count = 0;

	if (fake_store_crash(crash->store, point.event_count, point.loss, point.seed, &image,
			     &err) < 0) {
		(void)snprintf(why, CRASH_WHY_BYTES, "%s", err.text);
		return false;
	}
	if (point.seed % AGAIN_EACH == 3 && !fail_again(crash, &image, point, why))
		return false;
	if (!point_look(crash, image, point, names, &count, why)) {
		(void)snprintf(why + strlen(why), CRASH_WHY_BYTES - strlen(why), "%s",
			       why[0] == '\0' ? "?" : "");
		return false;
	}
	for (uint32_t i = 0; i < count; i++)
		if (!check_image(crash, image, names[i], why))
			return false;
	return true;
}

static uint32_t point_fails(const char *program, const struct crash *crash, struct point point)
{
	char why[CRASH_WHY_BYTES] = "";

	point_print(program, crash->plan, point);
	if (point_check(crash, point, why))
		return 0;
	(void)fprintf(stderr,
		      "case %s (round %u), power failure after event %" PRIu64
		      " with loss '%s', seed %" PRIu64 ": %s\n%s",
		      crash->plan->name, point.round, point.event_count, loss_names[point.loss],
		      point.seed, why, current_point);
	return 1;
}

/* --- a case --- */

/* The same case with other random numbers; round 0 is as the table says. */
static struct crash_case case_round(const struct crash_case *plan, uint32_t round)
{
	struct crash_case other = *plan;

	other.plan.seed += (uint64_t)round * ROUND_SEEDS;
	if (plan->plan.fail_at > 0)
		other.plan.fail_at += (uint64_t)round * FAIL_STEP;
	if (plan->plan.delay_steps > 0)
		other.plan.delay_steps = (plan->plan.delay_steps + round) % 6;
	return other;
}

/* @plan stays where it is until case_end(). */
static struct crash *case_run(const struct crash_case *plan)
{
	struct crash *crash = malloc(sizeof(*crash));
	static const struct fake_store_plan calm;

	base_assert(crash != NULL);
	(void)snprintf(current_point, sizeof(current_point), "in the workload of case %s\n",
		       plan->name);
	crash_init(crash, plan);
	plan->run(crash);
	crash_verify(crash);
	fake_store_set_plan(crash->store, &calm);
	return crash;
}

static void case_end(struct crash *crash)
{
	crash_fini(crash);
	free(crash);
}

static uint32_t round_points(const char *program, const struct crash_case *plan, uint32_t round,
			     uint32_t points, uint64_t *events)
{
	struct crash_case mine = case_round(plan, round);
	struct crash *crash = case_run(&mine);
	uint64_t event_count = fake_store_event_count(crash->store);
	uint32_t failures = 0;

	*events += event_count;
	for (uint32_t i = 0; i < points && failures < FAILURES_MAX; i++) {
		struct point point = {
			.round = round,
			.event_count = (uint64_t)i * (event_count + 1) / points,
			.loss = (enum fake_store_loss)(FAKE_LOSE_NONE + i % 4),
			.seed = i / 4 + i,
		};

		failures += point_fails(program, crash, point);
	}
	case_end(crash);
	return failures;
}

static uint32_t case_points(const char *program, const struct crash_case *plan, uint32_t points,
			    uint32_t rounds)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	uint64_t took_ms;
	uint64_t events = 0;
	uint32_t failures = 0;

	for (uint32_t round = 0; round < rounds && failures < FAILURES_MAX; round++)
		failures += round_points(program, plan, round, points / rounds, &events);
	took_ms = (base_clock_boot_ns(&base_clock_system) - begin_ns) / BASE_NS_PER_MS;
	(void)printf("%-24s %6u points over %6" PRIu64 " events, %u failed, %" PRIu64 " ms\n",
		     plan->name, points / rounds * rounds, events, failures, took_ms);
	(void)fflush(stdout);
	return failures;
}

static enum fake_store_loss loss_of(const char *name)
{
	for (int loss = FAKE_LOSE_NONE; loss < FAKE_LOSSES; loss++)
		if (strcmp(name, loss_names[loss]) == 0)
			return (enum fake_store_loss)loss;
	return FAKE_LOSS_INVALID;
}

/* "CASE:ROUND:EVENT:LOSS:SEED" */
static int point_alone(const char *program, const char *text, const struct crash_case *cases,
		       size_t case_count)
{
	struct point point = { .event_count = 0 };
	char name[64];
	char loss[16];

	if (sscanf(text, "%63[^:]:%u:%" SCNu64 ":%15[^:]:%" SCNu64, name, &point.round,
		   &point.event_count, loss, &point.seed) != 5) {
		(void)fprintf(stderr, "'%s' is not CASE:ROUND:EVENT:LOSS:SEED\n", text);
		return 2;
	}
	point.loss = loss_of(loss);
	for (size_t i = 0; i < case_count && point.loss != FAKE_LOSS_INVALID; i++) {
		struct crash_case mine = case_round(&cases[i], point.round);
		struct crash *crash;
		uint32_t failures;

		if (strcmp(cases[i].name, name) != 0)
			continue;
		crash = case_run(&mine);
		failures = point_fails(program, crash, point);
		case_end(crash);
		return failures == 0 ? 0 : 1;
	}
	(void)fprintf(stderr, "no case '%s' or no loss '%s'\n", name, loss);
	return 2;
}

int crash_main(int argc, char **argv, const struct crash_case *cases, size_t case_count,
	       uint32_t points)
{
	const char *program = argc > 0 ? argv[0] : "crash";
	uint32_t shares = 0;
	uint32_t failures = 0;
	uint32_t rounds = ROUNDS;
	uint32_t all = 0;

	(void)signal(SIGABRT, on_abort);
	(void)signal(SIGTERM, on_abort);
	if (argc == 3 && strcmp(argv[1], "--point") == 0)
		return point_alone(program, argv[2], cases, case_count);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	points /= 2 * depth_stride(); /* half of them where all are wanted */
	rounds = 1;
#endif
	if (argc == 3 && strcmp(argv[1], "--rounds") == 0) {
		uint32_t wanted = (uint32_t)strtoul(argv[2], NULL, 10);

		points = wanted == 0 ? points : points / rounds * wanted;
		rounds = wanted == 0 ? rounds : wanted;
	}
	for (size_t i = 0; i < case_count; i++)
		shares += cases[i].share == 0 ? 1 : cases[i].share;
	for (size_t i = 0; i < case_count; i++) {
		uint32_t mine = points * (cases[i].share == 0 ? 1 : cases[i].share) / shares;

		failures += case_points(program, &cases[i], mine, rounds);
		all += mine / rounds * rounds;
	}
	(void)printf("%u crash points, %u failed\n", all, failures);
	return failures == 0 ? 0 : 1;
}
