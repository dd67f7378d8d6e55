// Exports of lists in the background.
import { download } from "@web/core/network/download";
import { registry } from "@web/core/registry";
import { patch } from "@web/core/utils/patch";
import { session } from "@web/session";
import { asyncDownload } from "../core/async_download";

const EXPORT_URL = /^\/web\/export\/(csv|xlsx)$/;

let exportService;

// List views have no better extension point: all exports call this, from the dialog or directly.
patch(download, {
    async _download(options) {
        const format = EXPORT_URL.exec(options.url)?.[1];
        const isDone = format && (await exportService?.export(format, options.data.data));
        return isDone ? undefined : super._download(options);
    },
});

/** Exports lists in the background if the server can. */
export const asyncExportService = {
    dependencies: ["async_job", "orm"],

    start(env, { async_job: asyncJob, orm }) {
        exportService = {
            /**
             * @param {"csv"|"xlsx"} format
             * @param {string} data the parameter of the route `/web/export/<format>`
             * @returns {Promise<boolean>} false: Odoo makes the export in the foreground
             */
            async export(format, data) {
                const { model } = JSON.parse(data);
                if (
                    !session.async_downloads?.export ||
                    !(await orm.call(model, "has_async_export", [format, data]))
                ) {
                    return false;
                }
                await asyncDownload(asyncJob, {
                    model,
                    method: "async_export",
                    args: [format, data],
                });
                return true;
            },
        };
        return exportService;
    },
};

registry.category("services").add("async_export", asyncExportService);
