import { fields, getKwArgs, models, serverState } from "@web/../tests/web_test_helpers";

const LISTED_MAX = 100;
const PAYLOAD_MAX_SIZE = 64 * 1024;
const ENDED = ["succeeded", "done", "failed", "cancelled"];

/**
 * Jobs as the web client sees them. Nothing runs here: tests say what becomes of a job with `_change`.
 */
export class IrAsync extends models.Model {
    _name = "ir.async";
    _order = "id DESC";

    name = fields.Char();
    state = fields.Selection({
        selection: [
            ["waiting", "Waiting"],
            ["created", "Queued"],
            ["processing", "Running"],
            ["succeeded", "Ready"],
            ["done", "Done"],
            ["failed", "Failed"],
            ["cancelled", "Cancelled"],
        ],
        default: "created",
    });
    payload = fields.Json();
    progress = fields.Json();
    duration = fields.Float({ aggregator: "avg" });
    notify = fields.Boolean({ default: true });
    dismissed = fields.Boolean();
    revision = fields.Integer({ default: 1 });
    user_id = fields.Many2one({ relation: "res.users", default: () => serverState.userId });
    date_start = fields.Datetime();
    date_done = fields.Datetime();
    // what `get_user_jobs` computes
    elapsed = fields.Float();
    ended_ago = fields.Float();
    scheduled_in = fields.Float();
    is_stuck = fields.Boolean();

    /**
     * Start a job, and tell its user, as `call_notify` does.
     *
     * @param {string|false} name
     * @param {Object} [values]
     * @returns {number} its id
     */
    _call_notify(name, values = {}) {
        const [id] = this.create([{ name, ...values }]);
        this._send(id);
        return id;
    }

    /**
     * Change a job and tell its user.
     *
     * @param {number} id
     * @param {Object} values
     * @param {Object} [more] of the message
     */
    _change(id, values, more) {
        const [job] = this.browse(id);
        this.write([id], { ...values, revision: job.revision + 1 });
        this._send(id, more);
    }

    /** @param {number} id */
    _send(id, more = {}) {
        this.env["bus.bus"]._sendone("broadcast", "ir.async", {
            ...this._message(id),
            ...more,
        });
    }

    _message(id) {
        const [{ name, state, revision, payload, progress, dismissed }] = this.browse(id);
        return {
            id,
            name,
            state,
            revision,
            ...(payload && { payload }),
            ...(progress && state === "processing" && { progress }),
            ...(dismissed && { dismissed }),
        };
    }

    get_user_jobs(jobIds) {
        jobIds = getKwArgs(arguments, "job_ids").job_ids || [];
        const listed = this.filter((job) => job.notify && !job.dismissed).slice(0, LISTED_MAX);
        const more = this.filter((job) => jobIds.includes(job.id) && !listed.includes(job));
        return [...listed, ...more].map((job) => this._row(job));
    }

    _row({ id, elapsed, ended_ago, is_stuck, payload, scheduled_in }) {
        const row = {
            payload: null,
            ...this._message(id),
            elapsed: elapsed || null,
            ...(ended_ago && { ended_ago }),
            ...(scheduled_in && { scheduled_in }),
            ...(is_stuck && { is_stuck }),
        };
        if (JSON.stringify(payload || null).length > PAYLOAD_MAX_SIZE) {
            delete row.payload;
            row.result_type = payload.result?.type || false;
        }
        return row;
    }

    complete(ids) {
        ids.forEach((id) => this._change(id, { state: "done" }));
        return true;
    }

    cancel(ids) {
        ids.forEach((id) => this._change(id, { state: "cancelled" }));
        return true;
    }

    retry(ids) {
        ids.forEach((id) => this._change(id, { state: "created", payload: false }));
        return true;
    }

    dismiss(ids) {
        if (this.browse(ids).some((job) => !ENDED.includes(job.state))) {
            throw new Error("Only jobs that ended can be dismissed.");
        }
        ids.forEach((id) => this._change(id, { dismissed: true }));
        return true;
    }
}
