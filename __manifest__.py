{
    'name': 'Background Jobs',
    'version': '19.0.1.2.0',
    'summary': 'Run any model method in the background and notify the user',
    'category': 'Hidden/Tools',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['bus'],
    'data': [
        'data/ir_cron_data.xml',
        'security/ir_async_groups.xml',
        'security/ir_async_security.xml',
        'security/ir.model.access.csv',
        'security/ir_attachment_security.xml',
        'views/ir_async_channel_views.xml',
        'views/ir_async_views.xml',
        'views/ir_async_worker_views.xml',
        'views/ir_async_menus.xml',
        'views/res_config_settings_views.xml',
    ],
    'assets': {
        'web.assets_backend': [
            'ir_async/static/src/**/*',
        ],
        'web.assets_tests': [
            'ir_async/static/tests/tours/**/*',
        ],
        'web.assets_unit_tests': [
            'ir_async/static/tests/**/*',
            ('remove', 'ir_async/static/tests/tours/**/*'),
        ],
    },
    'post_load': 'post_load',
    'post_init_hook': 'post_init_hook',
    'uninstall_hook': 'uninstall_hook',
}
