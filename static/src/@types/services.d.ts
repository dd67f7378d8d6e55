declare module "services" {
    import { asyncJobService } from "@ir_async/services/async_job_service";

    export interface Services {
        async_job: ReturnType<typeof asyncJobService.start>;
    }
}
