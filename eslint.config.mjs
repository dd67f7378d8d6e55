// Odoo's rules: web/tooling/_eslintrc.json and test_lint/tests/eslintrc. `script/test lint` sets NODE_PATH.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

export default [
    require("@eslint/js").configs.recommended,
    {
        files: ["static/**/*.js"],
        ignores: ["static/lib/**"],
        languageOptions: {
            ecmaVersion: 2022,
            sourceType: "module",
            globals: {
                ...require("globals").browser,
                odoo: "readonly",
                luxon: "readonly",
            },
        },
        rules: {
            "no-restricted-globals": ["error", "event", "self"],
            "no-duplicate-imports": "error",
            "no-unused-vars": ["error", { args: "none", caughtErrors: "all" }],
            curly: ["error", "all"],
            "prefer-const": ["error", { destructuring: "all", ignoreReadBeforeAssign: true }],
            "arrow-body-style": ["error", "as-needed"],
            "no-restricted-syntax": [
                "error",
                "PrivateIdentifier",
                {
                    selector:
                        "ClassDeclaration[superClass.name='Component']:not(:has(ClassBody.body > PropertyDefinition[key.name='props'][static='true']))",
                    message: "Component should declare static props",
                },
                {
                    selector:
                        "ClassDeclaration[superClass.name='Component']:not(:has(ClassBody.body > PropertyDefinition[key.name='template'][static='true']))",
                    message: "Component should declare static template",
                },
                {
                    selector: "CallExpression[callee.name='_t'] > :first-child[value=/(.*%s){2,}/]",
                    message: "Usage of _t function with multiple unnamed placeholders",
                },
                {
                    selector:
                        "CallExpression[callee.object.name='notificationService'][callee.property.name='add'] > Literal:first-child",
                    message: "String passed to 'notificationService.add()' should be translated.",
                },
            ],
        },
    },
];
