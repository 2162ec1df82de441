/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk info, and map.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "agent/cli_disk_priv.h"
#include "base/cleanup.h"

#define MAP_EXTENTS 256U

/* One image with what the host and the store know about its file. */
struct layer_view {
	struct disk_layer_info info;
	struct store_lease lease;
	uint64_t file_bytes;
	uint64_t used_bytes;
	char path[STORE_NAME_BYTES + 1]; /* absolute */
};

static int look(struct cli_disk *session, struct disk *disk, uint32_t index,
		struct layer_view *view, struct base_error *err)
{
	int rc = disk_layer(disk, index, &view->info, err);

	if (rc < 0)
		return rc;
	(void)snprintf(view->path, sizeof(view->path), "/%s", view->info.name);
	rc = cli_disk_usage(view->path, &view->file_bytes, &view->used_bytes, err);
	if (rc == 0)
		rc = store_lease(session->store, view->info.name, &view->lease, err);
	return cli_disk_words(session, rc, err);
}

/* Without the braces: what other tools show and take. */
static void guid_text(const struct disk_guid *guid, char text[DISK_GUID_TEXT_BYTES])
{
	char braced[DISK_GUID_TEXT_BYTES];

	disk_guid_text(guid, braced);
	(void)snprintf(text, DISK_GUID_TEXT_BYTES, "%.*s", DISK_GUID_TEXT_BYTES - 3, braced + 1);
}

/* Set @key unless @value is NULL (no memory), which makes the whole NULL in the end. */
static bool put(json_t *object, const char *key, json_t *value)
{
	return json_object_set_new(object, key, value) == 0;
}

static json_t *view_json(const struct layer_view *view)
{
	const struct disk_layer_info *info = &view->info;
	json_t *object = json_object();
	char guid[DISK_GUID_TEXT_BYTES];
	bool good = object != NULL;

	good = good && put(object, "filename", json_string(view->path)) &&
	       put(object, "format", json_string(disk_format_name(info->format))) &&
	       put(object, "kind", json_string(disk_kind_name(info->kind))) &&
	       put(object, "virtual-size", json_integer((json_int_t)info->size_bytes)) &&
	       put(object, "file-size", json_integer((json_int_t)view->file_bytes)) &&
	       put(object, "actual-size", json_integer((json_int_t)view->used_bytes)) &&
	       put(object, "logical-sector-size",
		   json_integer((json_int_t)info->logical_sector_bytes)) &&
	       put(object, "physical-sector-size",
		   json_integer((json_int_t)info->physical_sector_bytes)) &&
	       put(object, "log-dirty", json_boolean(info->log_dirty)) &&
	       put(object, "held", json_boolean(view->lease.held)) &&
	       put(object, "epoch", json_integer((json_int_t)view->lease.epoch));
	if (good && info->block_bytes != 0)
		good = put(object, "cluster-size", json_integer((json_int_t)info->block_bytes));
	if (good && info->allocated_bytes != UINT64_MAX)
		good = put(object, "allocated", json_integer((json_int_t)info->allocated_bytes));
	if (good && view->lease.held)
		good = put(object, "holder", json_string(view->lease.holder));
	if (good && info->parent[0] != '\0')
		good = put(object, "backing-filename", json_string(info->parent));
	if (good && info->creator[0] != '\0')
		good = put(object, "creator", json_string(info->creator));
	if (good && !disk_guid_is_zero(&info->id)) {
		guid_text(&info->id, guid);
		good = put(object, "id", json_string(guid));
	}
	if (good && !disk_guid_is_zero(&info->data_id)) {
		guid_text(&info->data_id, guid);
		good = put(object, "data-id", json_string(guid));
	}
	if (good)
		return object;
	json_decref(object);
	return NULL;
}

static void print_size(const char *label, uint64_t bytes)
{
	char text[CLI_SIZE_SHOWN_BYTES];

	cli_size_show(bytes, text);
	if (bytes < 1024)
		(void)printf("%s: %s\n", label, text);
	else
		(void)printf("%s: %s (%" PRIu64 " bytes)\n", label, text, bytes);
}

static void view_text(const struct layer_view *view)
{
	const struct disk_layer_info *info = &view->info;
	char guid[DISK_GUID_TEXT_BYTES];

	(void)printf("image: %s\nformat: %s, %s\n", view->path, disk_format_name(info->format),
		     disk_kind_name(info->kind));
	print_size("virtual size", info->size_bytes);
	print_size("file size", view->file_bytes);
	print_size("disk usage", view->used_bytes);
	if (info->allocated_bytes != UINT64_MAX)
		print_size("allocated", info->allocated_bytes);
	if (info->block_bytes != 0)
		print_size("block size", info->block_bytes);
	(void)printf("sectors: %" PRIu32 " bytes logical, %" PRIu32 " physical\n",
		     info->logical_sector_bytes, info->physical_sector_bytes);
	if (!disk_guid_is_zero(&info->id)) {
		guid_text(&info->id, guid);
		(void)printf("disk id: %s\n", guid);
	}
	if (!disk_guid_is_zero(&info->data_id)) {
		guid_text(&info->data_id, guid);
		(void)printf("data id: %s\n", guid);
	}
	if (info->creator[0] != '\0')
		(void)printf("creator: %s\n", info->creator);
	if (info->parent[0] != '\0')
		(void)printf("parent: %s\n", info->parent);
	if (info->format == DISK_VHDX)
		(void)printf("log: %s\n",
			     info->log_dirty ? "dirty: in use, or not closed cleanly" : "clean");
	if (view->lease.held)
		(void)printf("held by: %s, at epoch %" PRIu64 "\n", view->lease.holder,
			     view->lease.epoch);
	else if (view->lease.epoch != STORE_EPOCH_NONE)
		(void)printf("held by: nobody; last epoch %" PRIu64 "\n", view->lease.epoch);
	else
		(void)printf("held by: nobody\n");
}

static int info(struct cli_disk *session, const struct cli_disk_args *args, json_t *list,
		struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	int rc = cli_disk_open(session, args->name, args->format, true, &disk, err);

	for (uint32_t i = 0; rc == 0; i++) {
		struct layer_view view;

		rc = look(session, disk, i, &view, err);
		if (rc == -ENOENT && i > 0) {
			if (err != NULL)
				*err = (struct base_error){ 0 };
			return 0; /* past the base */
		}
		if (rc == 0 && list != NULL && json_array_append_new(list, view_json(&view)) != 0)
			rc = base_fail(err, -ENOMEM, "JSON text");
		else if (rc == 0 && list == NULL) {
			(void)printf("%s", i > 0 ? "\n" : "");
			view_text(&view);
		}
		if (!args->backing_chain)
			break;
	}
	return rc;
}

int cli_disk_info(const void *arguments, struct base_error *err)
{
	const struct cli_disk_args *args = arguments;
	struct cli_disk session = { 0 };
	json_t *list = NULL;
	int rc = cli_disk_begin(&session, err);

	if (rc == 0 && cli_disk_wants_json(args)) {
		list = json_array();
		if (list == NULL)
			rc = base_fail(err, -ENOMEM, "JSON text");
	}
	if (rc == 0)
		rc = info(&session, args, list, err);
	/* As qemu-img: a list with the chain, else the one object. */
	if (rc == 0 && list != NULL)
		rc = cli_disk_print_json(args->backing_chain ? json_incref(list)
							     : json_incref(json_array_get(list, 0)),
					 err);
	json_decref(list);
	cli_disk_end(&session);
	return rc;
}

static const char *extent_word(enum disk_extent_kind kind)
{
	switch (kind) {
	case DISK_EXTENT_DATA:
		return "data";
	case DISK_EXTENT_ZERO:
		return "zero";
	case DISK_EXTENT_UNMAPPED:
		return "unmapped";
	case DISK_EXTENT_PARENT:
	case DISK_EXTENT_INVALID:
	case DISK_EXTENT_KINDS:
		break;
	}
	return "unknown";
}

/* Runs of one kind come joined, whatever pieces the disk gives them in. */
struct run {
	struct disk_extent extent; /* length 0: none */
	bool json;
	bool any;
};

static void print_run(struct run *run)
{
	const struct disk_extent *e = &run->extent;

	if (e->length_bytes == 0)
		return;
	if (run->json)
		(void)printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
			     ", \"kind\": \"%s\", \"data\": %s, \"zero\": %s }",
			     run->any ? ",\n" : "[", e->offset_bytes, e->length_bytes,
			     extent_word(e->kind), e->kind == DISK_EXTENT_DATA ? "true" : "false",
			     e->kind == DISK_EXTENT_DATA ? "false" : "true");
	else
		(void)printf("%18" PRIu64 " %18" PRIu64 "  %s\n", e->offset_bytes, e->length_bytes,
			     extent_word(e->kind));
	run->any = true;
}

static void add_extent(struct run *run, const struct disk_extent *extent)
{
	if (run->extent.length_bytes != 0 && run->extent.kind == extent->kind) {
		run->extent.length_bytes += extent->length_bytes;
		return;
	}
	print_run(run);
	run->extent = *extent;
}

static int map(struct cli_disk *session, const struct cli_disk_args *args, struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	struct disk_extent extents[MAP_EXTENTS];
	struct run run = { .json = cli_disk_wants_json(args) };
	struct disk_geometry geometry;
	uint64_t at = 0;
	int rc = cli_disk_open(session, args->name, args->format, true, &disk, err);

	if (rc < 0)
		return rc;
	disk_geometry(disk, &geometry);
	if (!run.json)
		(void)printf("%18s %18s  %s\n", "start", "length", "kind");
	while (at < geometry.size_bytes) {
		uint32_t count = 0;

		rc = cli_disk_extents(session, disk,
				      &(struct cli_disk_span){ at, geometry.size_bytes - at },
				      extents, MAP_EXTENTS, &count);
		if (rc < 0)
			return base_fail_errno(err, rc, "'%s': map at %" PRIu64, args->name, at);
		for (uint32_t i = 0; i < count; i++) {
			add_extent(&run, &extents[i]);
			at += extents[i].length_bytes;
		}
	}
	print_run(&run);
	if (run.json)
		(void)printf(run.any ? "]\n" : "[]\n");
	return 0;
}

int cli_disk_map(const void *arguments, struct base_error *err)
{
	struct cli_disk session = { 0 };
	int rc = cli_disk_begin(&session, err);

	if (rc == 0)
		rc = map(&session, arguments, err);
	cli_disk_end(&session);
	return rc;
}
