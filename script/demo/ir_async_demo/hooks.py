PARTNERS = 20_000


def _create_partners(env):
    env['res.partner'].with_context(tracking_disable=True).create(
        [
            {
                'name': f'Partner {number:05}',
                'email': f'partner.{number:05}@example.com',
                'phone': f'+32 2 {number:07}',
                'city': ('Brussels', 'Namur', 'Ghent', 'Antwerp')[number % 4],
                'ref': f'P{number:05}',
            }
            for number in range(1, PARTNERS + 1)
        ]
    )
