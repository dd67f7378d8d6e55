// PDF reports in the background.
import { registry } from "@web/core/registry";
import { user } from "@web/core/user";
import { session } from "@web/session";
import { asyncDownload } from "../core/async_download";

/**
 * Print PDF reports in the background if the server can.
 *
 * @param {Object} action of the type `ir.actions.report`
 * @param {Object} options
 * @param {import("@web/env").OdooEnv} env
 * @returns {Promise<boolean>} false: Odoo or another addon prints it
 */
async function asyncReportHandler(action, options, env) {
    const { report_type: type, report_name: name, data, context } = action;
    if (type !== "qweb-pdf" || !session.async_downloads?.report || /[/?]/.test(name)) {
        return false;
    }
    const { async_job: asyncJob, orm } = env.services;
    const hasData = Boolean(data && Object.keys(data).length); // then it selects the records to print
    const ids = (!hasData && context?.active_ids) || [];
    if (!(await orm.call("ir.actions.report", "has_async_pdf", [name, ids]))) {
        return false;
    }
    await asyncDownload(asyncJob, {
        model: "ir.actions.report",
        method: "async_pdf",
        args: [name, ids, hasData ? data : {}],
        kwargs: { context: { ...user.context, ...context } },
    });
    return true;
}

// After the handlers of other addons, which print elsewhere or something else.
registry
    .category("ir.actions.report handlers")
    .add("async_report_handler", asyncReportHandler, { sequence: 100 });
