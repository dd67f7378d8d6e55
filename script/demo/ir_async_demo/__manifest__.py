{
    'name': 'Async Jobs Demo',
    'version': '19.0.1.0.0',
    'summary': 'What script/run shows: 20,000 partners, exported in the background',
    'category': 'Hidden',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['ir_async'],
    'data': [
        'views/res_partner_views.xml',
    ],
    'assets': {
        'web.assets_backend': [
            'ir_async_demo/static/src/**/*',
            ('remove', 'ir_async_demo/static/src/scss/*.dark.scss'),
        ],
        'web.assets_web_dark': [
            (
                'before',
                'web/static/src/scss/primary_variables.scss',
                'ir_async_demo/static/src/scss/primary_variables.dark.scss',
            ),
        ],
    },
    'post_init_hook': '_create_partners',
}
