// The screen that blocks the page.
import { BLOCK_UI_DURATION } from "@ir_async/services/async_job_waits";
import { advanceTime, animationFrame, describe, expect, press, test } from "@odoo/hoot";
import { Component, xml } from "@odoo/owl";
import { contains, getService, mountWithCleanup } from "@web/../tests/web_test_helpers";
import { MainComponentsContainer } from "@web/core/main_components_container";
import {
    callExport,
    changeJob,
    defineIrAsyncModels,
    makeAsyncJobEnv,
    mockExport,
    mockNotifications,
    nextMessages,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

async function mountBlocked() {
    mockExport();
    const toasts = mockNotifications();
    const env = await makeAsyncJobEnv();
    class Page extends Component {
        static template = xml`<input class="o_test_input"/><MainComponentsContainer/>`;
        static components = { MainComponentsContainer };
        static props = {};
    }
    await mountWithCleanup(Page, { env });
    await contains(".o_test_input").edit("typed");
    const outcome = callExport({});
    await nextMessages();
    await advanceTime(500);
    await animationFrame();
    return { outcome, toasts };
}

test("shows what runs, with its progress", async () => {
    await mountBlocked();
    expect(".o_ir_async_block_name").toHaveText("Export");
    expect(".o_ir_async_block_state").toHaveText("Queued");
    await changeJob(1, "processing", { progress: { done: 1, total: 4, message: "1 of 4" } });
    expect(".o_ir_async_block_state").toHaveText("Running");
    expect(".o_ir_async_block .progress-bar").toHaveStyle({ width: "25%" }, { inline: true });
    expect(".o_ir_async_block [role=progressbar]").toHaveAttribute(
        "aria-label",
        "Progress of Export"
    );
    await changeJob(1, "done");
    expect(".o_ir_async_block").toHaveCount(0);
});

test("Continue in background, at once", async () => {
    const { outcome, toasts } = await mountBlocked();
    expect(".o_ir_async_continue").toBeFocused();
    await contains(".o_ir_async_continue").click();
    expect(".o_ir_async_block").toHaveCount(0);
    expect(getService("ui").isBlocked).toBe(false);
    await animationFrame();
    expect(".o_test_input").toBeFocused();
    expect(".o_test_input").toHaveValue("typed");
    expect(toasts.map(({ message }) => message)).toEqual([
        "You can keep working; the result will appear under Background jobs.",
    ]);
    await advanceTime(BLOCK_UI_DURATION);
    expect(toasts).toHaveLength(1);
    await changeJob(1, "done");
    expect(outcome.job.inBackground).toBe(true);
});

test("Escape does the same", async () => {
    await mountBlocked();
    await press("Escape");
    await animationFrame();
    expect(".o_ir_async_block").toHaveCount(0);
    expect(getService("ui").isBlocked).toBe(false);
});

test("two calls: one screen", async () => {
    await mountBlocked();
    callExport({});
    await nextMessages();
    await advanceTime(500);
    await animationFrame();
    expect(".o_ir_async_block").toHaveCount(1);
    expect(".o_ir_async_block_name").toHaveCount(2);
    await changeJob(1, "done");
    expect(".o_ir_async_block_name").toHaveCount(1);
    await contains(".o_ir_async_continue").click();
    expect(getService("ui").isBlocked).toBe(false);
});
