import { AsyncMenu } from "@ir_async/async_menu/async_menu";
import { BLOCK_UI_DURATION } from "@ir_async/services/async_job_waits";
import { advanceTime, animationFrame, beforeEach, describe, expect, test } from "@odoo/hoot";
import {
    getService,
    mountWithCleanup,
    onRpc,
    patchWithCleanup,
} from "@web/../tests/web_test_helpers";
import { download } from "@web/core/network/download";
import { registry } from "@web/core/registry";
import { session } from "@web/session";
import {
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    makeErrorPayload,
    mockNotifications,
    nextMessages,
    startJob,
} from "../ir_async_test_helpers";

defineIrAsyncModels();

const URL = "/web/content/7?download=true";
const PAYLOAD = { result: { type: "ir.actions.act_url", url: URL, target: "download" } };
const DATA = JSON.stringify({ model: "res.partner", ids: [1, 2] });
const REPORT = {
    type: "ir.actions.report",
    report_type: "qweb-pdf",
    report_name: "web.cards",
    context: { active_ids: [1, 2], key: "value" },
};

let isAvailable, jobId;

beforeEach(() => {
    isAvailable = true;
    patchWithCleanup(session, { async_downloads: { export: true, report: true } });
    const onAvailable = ({ args, method }) => {
        expect.step(`${method} ${args[0]}`);
        return isAvailable;
    };
    const onStart = ({ args, method, kwargs }) => {
        const key = kwargs.context.key ? ` ${kwargs.context.key}` : "";
        expect.step(`${method} ${JSON.stringify(args)}${key}`);
        jobId = startJob("Contact (XLSX)");
        return { asyncJobId: jobId };
    };
    onRpc("res.partner", "has_async_export", onAvailable);
    onRpc("res.partner", "async_export", onStart);
    onRpc("ir.actions.report", "has_async_pdf", onAvailable);
    onRpc("ir.actions.report", "async_pdf", onStart);
    onRpc("ir.async", "complete", () => expect.step("complete"));
    onRpc("ir.async", "dismiss", () => expect.step("dismiss"));
    // what Odoo does without us
    onRpc("/web/export/csv", () => {
        expect.step("/web/export/csv");
        throw new Error("as far as it matters here");
    });
});

async function makeEnv() {
    const env = await makeAsyncJobEnv();
    // Odoo's own download saves a file.
    patchWithCleanup(getService("async_job"), {
        async open(id) {
            expect.step(`open ${id === jobId}`);
        },
    });
    return env;
}

/** Tell what becomes of a promise. */
function follow(promise) {
    const outcome = { isOver: false, value: undefined, error: null };
    promise
        .then((value) => (outcome.value = value))
        .catch((error) => (outcome.error = error))
        .finally(() => (outcome.isOver = true));
    return outcome;
}

/** Export as list views do. */
function exportList(format = "xlsx") {
    return follow(download({ url: `/web/export/${format}`, data: { data: DATA } }));
}

/** Print as the action service does. */
function print(env, action) {
    const handler = registry.category("ir.actions.report handlers").get("async_report_handler");
    return follow(handler({ ...REPORT, ...action }, {}, env));
}

describe("export", () => {
    test("a quick one is downloaded, and leaves nothing in the list", async () => {
        const toasts = mockNotifications();
        await makeEnv();
        await mountWithCleanup(AsyncMenu);
        const outcome = exportList();
        await nextMessages();
        expect.verifySteps([
            "has_async_export xlsx",
            `async_export ${JSON.stringify(["xlsx", DATA])}`,
        ]);
        expect(outcome.isOver).toBe(false);
        expect(".o_ir_async_systray").toHaveCount(0);
        await changeJob(jobId, "succeeded", { payload: PAYLOAD });
        expect(".o_ir_async_systray").toHaveCount(0);
        expect.verifySteps(["open true", "dismiss"]);
        expect(outcome.isOver).toBe(true);
        expect(outcome.error).toBe(null);
        await advanceTime(BLOCK_UI_DURATION);
        expect(toasts).toHaveLength(0);
    });

    test("the error of a quick one is that of the export", async () => {
        await makeEnv();
        await mountWithCleanup(AsyncMenu);
        const outcome = exportList();
        await nextMessages();
        await changeJob(jobId, "failed", { payload: makeErrorPayload("Not that field") });
        expect(outcome.error.data.message).toBe("Not that field");
        await animationFrame();
        expect(".o_ir_async_systray").toHaveCount(1);
        expect.verifySteps([
            "has_async_export xlsx",
            `async_export ["xlsx",${JSON.stringify(DATA)}]`,
        ]);
    });

    test("a long one goes on in the background, and waits in the list", async () => {
        const toasts = mockNotifications();
        await makeEnv();
        await mountWithCleanup(AsyncMenu);
        const outcome = exportList();
        await nextMessages();
        expect(getService("ui").isBlocked).toBe(true);
        expect(".o_ir_async_systray").toHaveCount(0);
        await advanceTime(BLOCK_UI_DURATION);
        expect(outcome.isOver).toBe(true);
        await animationFrame();
        expect(".o_ir_async_systray").toHaveCount(1);
        expect(getService("ui").isBlocked).toBe(false);
        expect(toasts.map(({ type }) => type)).toEqual(["info"]);
        await changeJob(jobId, "succeeded", { payload: PAYLOAD });
        await advanceTime(500);
        const toast = toasts.at(-1);
        expect(toast.message).toBe("Your file is ready.");
        expect.verifySteps([
            "has_async_export xlsx",
            `async_export ["xlsx",${JSON.stringify(DATA)}]`,
        ]);
        toast.buttons[0].onClick();
        expect.verifySteps(["open true"]);
        expect(getService("async_job").jobs[jobId].state).toBe("succeeded");
    });

    test("the error of a long one is shown", async () => {
        expect.errors(1);
        mockNotifications();
        await makeEnv();
        const outcome = exportList();
        await nextMessages();
        await advanceTime(BLOCK_UI_DURATION);
        await changeJob(jobId, "failed", { payload: makeErrorPayload() });
        await nextMessages();
        expect.verifyErrors(["Odoo Server Error"]);
        expect(outcome.error).toBe(null);
        expect.verifySteps([
            "has_async_export xlsx",
            `async_export ["xlsx",${JSON.stringify(DATA)}]`,
        ]);
    });

    test("as ever where the server cannot", async () => {
        isAvailable = false;
        await makeEnv();
        const outcome = exportList("csv");
        await advanceTime(100);
        expect.verifySteps(["has_async_export csv", "/web/export/csv"]);
        expect(outcome.error).not.toBe(null);
    });

    test("as ever where it is switched off", async () => {
        patchWithCleanup(session, { async_downloads: { export: false, report: true } });
        await makeEnv();
        exportList("csv");
        await advanceTime(100);
        expect.verifySteps(["/web/export/csv"]);
    });
});

describe("report", () => {
    test("of records", async () => {
        const outcome = print(await makeEnv());
        await nextMessages();
        expect.verifySteps(["has_async_pdf web.cards", `async_pdf ["web.cards",[1,2],{}] value`]);
        await changeJob(jobId, "succeeded", { payload: PAYLOAD });
        expect.verifySteps(["open true", "dismiss"]);
        expect(outcome.value).toBe(true);
    });

    test("of the data of a wizard", async () => {
        print(await makeEnv(), { data: { date: "2026-11-24" } });
        await nextMessages();
        expect.verifySteps([
            "has_async_pdf web.cards",
            `async_pdf ["web.cards",[],{"date":"2026-11-24"}] value`,
        ]);
    });

    test("as ever where the server cannot, where it is switched off, or what is no PDF", async () => {
        const env = await makeEnv();
        isAvailable = false;
        const unavailable = print(env);
        await advanceTime(100);
        expect(unavailable.value).toBe(false);
        expect.verifySteps(["has_async_pdf web.cards"]);
        isAvailable = true;
        const others = [
            print(env, { report_type: "qweb-html" }),
            print(env, { report_name: "web.cards/1" }),
        ];
        patchWithCleanup(session, { async_downloads: { export: true, report: false } });
        others.push(print(env));
        await advanceTime(100);
        expect(others.map(({ value }) => value)).toEqual([false, false, false]);
    });
});
