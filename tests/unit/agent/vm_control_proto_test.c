/* SPDX-License-Identifier: Apache-2.0 */
/* The control protocol's bytes: every refusal, and the three kinds of lines. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_control_proto.h"

static const struct vm_command_spec commands[] = {
	{ "plain", { { NULL, VM_ARG_INVALID, false } } },
	{ "save", { { "file", VM_ARG_TEXT, true }, { "go_on", VM_ARG_SWITCH, false } } },
	{ "poke", { { "value", VM_ARG_NUMBER, true } } },
	{ "type", { { "text", VM_ARG_BYTES, true } } },
};

static int decode(const char *line, struct vm_request *request, struct base_error *err)
{
	return vm_request_decode(commands, sizeof(commands) / sizeof(commands[0]), line,
				 strlen(line), request, err);
}

Test(vm_control_proto, good_requests)
{
	struct vm_request request;

	cr_assert_eq(decode("{\"id\":7,\"cmd\":\"plain\"}", &request, NULL), 0);
	cr_assert_eq(request.id, 7);
	cr_assert_eq(request.command, 0);
	cr_assert_eq(decode(" {\"cmd\":\"save\", \"file\":\"a b\", \"go_on\":true, \"id\":0}",
			    &request, NULL),
		     0);
	cr_assert_eq(request.command, 1);
	cr_assert_str_eq(request.args[0].text, "a b");
	cr_assert(request.args[1].given && request.args[1].flag);
	cr_assert_eq(decode("{\"id\":1,\"cmd\":\"save\",\"file\":\"x\"}", &request, NULL), 0);
	cr_assert_not(request.args[1].given || request.args[1].flag);
	cr_assert_eq(decode("{\"id\":1,\"cmd\":\"type\",\"text\":\"\\n\"}", &request, NULL), 0);
}

Test(vm_control_proto, numbers)
{
	static const struct {
		const char *text;
		int code;
		uint64_t number;
	} cases[] = {
		{ "0", 0, 0 },
		{ "9223372036854775807", 0, INT64_MAX },
		{ "\"0xFFffFFffFFffFFff\"", 0, UINT64_MAX },
		{ "\"18446744073709551615\"", 0, UINT64_MAX },
		{ "\"18446744073709551616\"", -EINVAL, 0 },
		{ "\"0x10000000000000000\"", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "1.5", -EINVAL, 0 },
		{ "true", -EINVAL, 0 },
		{ "\"\"", -EINVAL, 0 },
		{ "\"0x\"", -EINVAL, 0 },
		{ "\"12a\"", -EINVAL, 0 },
		{ "\" 1\"", -EINVAL, 0 },
		{ "null", -EINVAL, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vm_request request;
		char line[128];

		(void)snprintf(line, sizeof(line), "{\"id\":1,\"cmd\":\"poke\",\"value\":%s}",
			       cases[i].text);
		cr_expect_eq(decode(line, &request, NULL), cases[i].code, "%s", cases[i].text);
		if (cases[i].code == 0)
			cr_expect_eq(request.args[0].number, cases[i].number);
	}
}

Test(vm_control_proto, refused_lines)
{
	static const struct {
		const char *line;
		int code;
		bool has_id;
		const char *part;
	} cases[] = {
		{ "", -EBADMSG, false, "expected one JSON object" },
		{ "hello", -EBADMSG, false, "expected one JSON object" },
		{ "{\"id\":1", -EBADMSG, false, "expected one JSON object" },
		{ "{} {}", -EBADMSG, false, "expected one JSON object" },
		{ "[1]", -EBADMSG, false, "expected one JSON object" },
		{ "{\"id\":1,\"id\":2,\"cmd\":\"plain\"}", -EBADMSG, false, "expected one JSON" },
		{ "{\"cmd\":\"plain\"}", -EINVAL, false, "key 'id': expected an integer" },
		{ "{\"id\":-1,\"cmd\":\"plain\"}", -EINVAL, false, "key 'id'" },
		{ "{\"id\":\"1\",\"cmd\":\"plain\"}", -EINVAL, false, "key 'id'" },
		{ "{\"id\":1}", -EINVAL, true, "key 'cmd': expected the name" },
		{ "{\"id\":1,\"cmd\":5}", -EINVAL, true, "key 'cmd'" },
		{ "{\"id\":1,\"cmd\":\"fly\"}", -EINVAL, true, "command 'fly': expected a known" },
		{ "{\"id\":1,\"cmd\":\"plain\",\"x\":1}", -EINVAL, true, "'plain': 3 keys" },
		{ "{\"id\":1,\"cmd\":\"save\"}", -EINVAL, true, "argument 'file': expected a" },
		{ "{\"id\":1,\"cmd\":\"save\",\"file\":7}", -EINVAL, true,
		  "argument 'file': wrong" },
		{ "{\"id\":1,\"cmd\":\"save\",\"file\":\"\"}", -EINVAL, true, "argument 'file'" },
		{ "{\"id\":1,\"cmd\":\"save\",\"file\":\"a\\n\"}", -EINVAL, true,
		  "argument 'file'" },
		{ "{\"id\":1,\"cmd\":\"save\",\"file\":\"a\",\"go_on\":1}", -EINVAL, true,
		  "argument 'go_on': wrong value: expected true or false" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vm_request request;
		struct base_error err = { 0 };

		cr_expect_eq(decode(cases[i].line, &request, &err), cases[i].code, "%s",
			     cases[i].line);
		cr_expect_eq(request.has_id, cases[i].has_id, "%s", cases[i].line);
		cr_expect_not_null(strstr(err.text, cases[i].part), "%s: %s", cases[i].line,
				   err.text);
	}
}

Test(vm_control_proto, long_text_is_refused)
{
	char line[VM_CONTROL_TEXT_BYTES + 64] = "{\"id\":1,\"cmd\":\"save\",\"file\":\"";
	struct vm_request request;

	memset(line + strlen(line), 'a', VM_CONTROL_TEXT_BYTES);
	(void)strcat(line, "\"}");
	cr_assert_eq(decode(line, &request, NULL), -EINVAL);
}

Test(vm_control_proto, deep_nesting_is_refused)
{
	static char line[60000];
	struct vm_request request;

	memset(line, '[', sizeof(line) - 1);
	cr_assert_eq(decode(line, &request, NULL), -EBADMSG);
}

Test(vm_control_proto, lines_out)
{
	struct base_error err = { 0 };
	char *line = vm_answer_encode(true, 3, NULL);

	cr_assert_str_eq(line, "{\"id\":3,\"ok\":true,\"result\":{}}\n");
	free(line);
	line = vm_answer_encode(true, 4, json_pack("{s:o}", "v", vm_json_hex(255)));
	cr_assert_str_eq(line, "{\"id\":4,\"ok\":true,\"result\":{\"v\":\"0xff\"}}\n");
	free(line);
	(void)base_fail(&err, -EPROTO, "not now\n\"quoted\"");
	line = vm_refusal_encode(false, 0, &err);
	cr_assert_str_eq(line, "{\"id\":null,\"ok\":false,\"error\":{\"code\":\"EPROTO\",\"text\":"
			       "\"not now\\n\\\"quoted\\\"\"}}\n");
	free(line);
	(void)base_fail(&err, -EXDEV, "\xff");
	line = vm_refusal_encode(true, 1, &err);
	cr_assert_str_eq(line,
			 "{\"id\":1,\"ok\":false,\"error\":{\"code\":\"EIO\",\"text\":\"?\"}}\n");
	free(line);
	line = vm_event_encode("paused", json_pack("{s:s}", "vm", "a"));
	cr_assert_str_eq(line, "{\"event\":\"paused\",\"vm\":\"a\"}\n");
	free(line);
}
